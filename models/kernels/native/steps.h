// What the units share: steps over packed rows, and the recurrent product of each.
#pragma once

#include "product.h"

struct Steps {  // as in models/native/library.py
    const int64_t* sizes;  // rows of each step
    int64_t count, hidden;  // steps, H
    int64_t threads;  // at most
    int32_t reverse;
    int32_t join[3];  // ⋄ of each gate, in the unit's order
};

// f(first row of the step's in the arrays over N, number of rows) for sequences first to last, in the recurrence's order.
template <class F>
void each_step(const Steps& s, int64_t first, int64_t last, bool from_end, F f) {
    int64_t start = 0;
    if (from_end)
        for (int64_t t = 0; t < s.count; ++t) start += s.sizes[t];
    for (int64_t i = 0; i < s.count; ++i) {
        const int64_t size = s.sizes[from_end ? s.count - 1 - i : i];
        if (from_end) start -= size;
        if (std::min(last, size) > first) f(start + first, std::min(last, size) - first);
        if (!from_end) start += size;
    }
}

// f(first, last) on shares of the sequences; `products` is the number of H × H matrices a row is multiplied with.
template <class F>
void each_share(const Steps& s, int products, F f) {
    int64_t rows = 0;
    for (int64_t t = 0; t < s.count; ++t) rows += s.sizes[t];
    const int64_t B = s.count ? std::max(s.sizes[0], s.sizes[s.count - 1]) : 0;
    const int64_t threads = useful_threads(s.threads, B, 2.0 * rows * products * s.hidden * s.hidden);
    parallel(threads, B, [&](int64_t, int64_t first, int64_t last) { f(first, last); });
}

// f(column, number of columns) for each vector of a row.
template <class T, class F>
void each_vector(int64_t H, F f) {
    for (int64_t j = 0; j < H; j += LANES<T>) f(j, std::min<int64_t>(LANES<T>, H - j));
}

template <class T>
void copy_rows(T* to, const T* from, int64_t rows, int64_t H) {
    std::memcpy(to, from, rows * H * sizeof(T));
}

template <class T>
V<T> load_feature(const T* feature, int64_t at, int64_t n) {
    return feature ? load<T>(feature + at, n) : V<T>{};
}

// Stacked weights (blocks · H, H), transposed: columns of the blocks side by side.
template <class T, int BLOCKS>
Buffer<T> by_hidden_unit(const T* weight, int64_t H) {
    Buffer<T> panels(H * ceil_div(H, LANES<T>) * WIDTH<T, BLOCKS>);
    pack<T, BLOCKS>(weight, H, BLOCKS * H, 1, H, H, panels.get());
    return panels;
}

constexpr int PLAIN = 4;  // vectors in a panel of a product that has no blocks

template <class T>
Buffer<T> plain_panels(const T* weight, int64_t K, int64_t H, int64_t row, int64_t column) {
    Buffer<T> panels(K * ceil_div(H, WIDTH<T, PLAIN>) * WIDTH<T, PLAIN>);
    pack<T, PLAIN>(weight, K, H, row, column, 0, panels.get());
    return panels;
}

// a (rows, K) · panels (K, H); f(row, column, number of columns, sums).
template <class T, class F>
void multiply(const T* a, int64_t stride, int64_t rows, int64_t K, const T* panels, int64_t H, F f) {
    each_tile<T, PLAIN>(
        a, stride, 1, rows, K, panels, ceil_div(H, WIDTH<T, PLAIN>), [&](int64_t r, int64_t p, const T* sums) {
            for (int v = 0; v < PLAIN; ++v) {
                const int64_t j = p * WIDTH<T, PLAIN> + v * LANES<T>, n = std::min<int64_t>(LANES<T>, H - j);
                if (n > 0) f(r, j, n, load<T>(sums + v * LANES<T>));
            }
        });
}

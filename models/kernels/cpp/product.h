// Matrix products: a tile of rows by a panel of columns, summed in registers.
//
// Not a BLAS, because a step's element-wise part runs on a tile while it is in the L1 cache, and because the BLAS that
// torch calls is slow on some processors. Each element is summed in the order of k (in blocks of DEPTH in `gemm`),
// whatever the number of rows and threads: results depend on neither.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "vectors.h"

// Uninitialised memory, aligned to cache lines.
template <class T>
class Buffer {
    struct Free {
        void operator()(T* p) const { ::operator delete(p, std::align_val_t(64)); }
    };
    std::unique_ptr<T, Free> memory;

  public:
    explicit Buffer(int64_t n) : memory(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64)))) {}
    T* get() const { return memory.get(); }
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Threads are started for each call rather than kept in a pool beside torch's. That pays off from about 50 µs of work on.
constexpr double OPERATIONS_PER_THREAD = 2e7;  // floating-point operations

inline int64_t useful_threads(int64_t allowed, int64_t rows, double operations) {
    const int64_t by_work = static_cast<int64_t>(std::min(operations / OPERATIONS_PER_THREAD, 1024.0));
    return std::max<int64_t>(1, std::min({allowed, by_work, ceil_div(rows, 8)}));
}

// f(index, first, last) on `threads` ranges of the rows; f must not throw.
template <class F>
void parallel(int64_t threads, int64_t rows, F f) {
    const int64_t share = ceil_div(rows, threads);
    std::vector<std::thread> workers;
    workers.reserve(threads);
    for (int64_t i = 1; i < threads && i * share < rows; ++i) {
        const int64_t first = i * share, last = std::min(rows, first + share);
        try {
            workers.emplace_back([=, &f] { f(i, first, last); });
        } catch (...) {  // the system refused another thread
            f(i, first, last);
        }
    }
    f(0, 0, std::min(share, rows));
    for (auto& worker : workers) worker.join();
}

// A panel holds, for each k, `NV` vectors of columns side by side.
template <class T, int NV>
constexpr int WIDTH = NV * LANES<T>;

// Copy b (K, columns), b(k, n) at b[k · row + n · column], into panels. With `group` > 0 the columns are NV groups of that
// size, and vector v of a panel is from group v: all blocks of stacked weights for the same hidden units.
template <class T, int NV>
void pack(const T* b, int64_t K, int64_t columns, int64_t row, int64_t column, int64_t group, T* out) {
    constexpr int L = LANES<T>;
    const int64_t panels = ceil_div(group ? group : columns, group ? L : WIDTH<T, NV>);
    for (int64_t p = 0; p < panels; ++p, out += K * WIDTH<T, NV>)
        for (int v = 0; v < NV; ++v) {
            const int64_t first = group ? v * group + p * L : (p * NV + v) * L;
            const int64_t end = group ? (v + 1) * group : columns;
            const int count = static_cast<int>(std::clamp<int64_t>(end - first, 0, L));
            const T* from = b + first * column;
            T* to = out + v * L;
            if (column == 1) {
                for (int64_t k = 0; k < K; ++k) store<T>(to + k * WIDTH<T, NV>, load<T>(from + k * row, count));
                continue;
            }
            for (int64_t k0 = 0; k0 < K; k0 += 16) {  // blocks, so that each cache line is fetched once
                const int64_t k1 = std::min(K, k0 + 16);
                for (int n = 0; n < L; ++n)
                    for (int64_t k = k0; k < k1; ++k)
                        to[k * WIDTH<T, NV> + n] = n < count ? from[k * row + n * column] : T(0);
            }
        }
}

// tile (ROWS, WIDTH) = a (ROWS, K) · panel (K, WIDTH); a(m, k) at a[m · row + k · column].
template <class T, int NV, int ROWS>
void product(const T* a, int64_t row, int64_t column, const T* panel, int64_t K, T* tile) {
    V<T> sums[ROWS][NV];
#pragma GCC unroll 32
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) sums[r][v] = V<T>{};
    for (int64_t k = 0; k < K; ++k, a += column, panel += WIDTH<T, NV>) {
        V<T> b[NV];
        for (int v = 0; v < NV; ++v) b[v] = load<T>(panel + v * LANES<T>);
#pragma GCC unroll 32
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) sums[r][v] += a[r * row] * b[v];
    }
#pragma GCC unroll 32
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) store<T>(tile + (r * NV + v) * LANES<T>, sums[r][v]);
}

template <class T, int NV>
struct Products {
    using Product = void (*)(const T*, int64_t, int64_t, const T*, int64_t, T*);
    static constexpr int rows = SUMS / NV;
    template <size_t... R>
    static Product choose(int64_t n, std::index_sequence<R...>) {
        static constexpr Product by_rows[] = {product<T, NV, R + 1>...};
        return by_rows[n - 1];
    }
    static Product of(int64_t n) { return choose(n, std::make_index_sequence<rows>()); }
};

// a (rows, K) · each panel; calls epilogue(row, panel, the WIDTH sums) for each row of each tile.
template <class T, int NV, class E>
inline void multiply_panels(
    const T* a, int64_t row, int64_t column, int64_t rows, int64_t K, const T* panels, int64_t count, E epilogue) {
    using P = Products<T, NV>;
    alignas(64) T tile[P::rows * WIDTH<T, NV>];
    for (int64_t p = 0; p < count; ++p, panels += K * WIDTH<T, NV>) {
        int64_t blocks = ceil_div(rows, P::rows);
        for (int64_t r = 0; r < rows; --blocks) {
            const int64_t n = ceil_div(rows - r, blocks);  // blocks of nearly the same size
            P::of(n)(a + r * row, row, column, panels, K, tile);
            for (int64_t i = 0; i < n; ++i) epilogue(r + i, p, tile + i * WIDTH<T, NV>);
            r += n;
        }
    }
}

// `gemm` by panels of NV vectors.
template <class T, int NV>
void gemm_by(
    int64_t M, int64_t N, int64_t K, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row,
    int64_t b_column, const T* bias, int32_t apply_tanh, T* c, int64_t threads) {
    constexpr int L = LANES<T>;
    constexpr int64_t W = WIDTH<T, NV>;
    constexpr int64_t DEPTH = 256, BREADTH = 512, HEIGHT = 96;  // of k, n and m in the L2 cache
    const int64_t depth = std::min(DEPTH, K), breadth = ceil_div(std::min(BREADTH, N), W) * W;
    threads = useful_threads(threads, M, 2.0 * M * N * K);
    const int64_t workspace = ceil_div(depth * (breadth + HEIGHT), 16) * 16;
    Buffer<T> buffer(threads * workspace);
    parallel(threads, M, [&](int64_t index, int64_t first, int64_t last) {
        T* panels = buffer.get() + index * workspace;
        T* copied = panels + depth * breadth;
        for (int64_t n0 = 0; n0 < N; n0 += BREADTH)
            for (int64_t k0 = 0; k0 < K || k0 == 0; k0 += DEPTH) {
                const int64_t width = std::min(BREADTH, N - n0), deep = std::min(DEPTH, K - k0);
                pack<T, NV>(b + k0 * b_row + n0 * b_column, deep, width, b_row, b_column, 0, panels);
                for (int64_t m0 = first; m0 < last; m0 += HEIGHT) {
                    const int64_t height = std::min(HEIGHT, last - m0);
                    const T* block = a + m0 * a_row + k0 * a_column;
                    int64_t row = a_row, column = a_column;
                    if (a_row == 1 && a_column != 1) {  // rows of a transposed matrix are far apart
                        for (int64_t k = 0; k < deep; ++k)
                            std::memcpy(copied + k * HEIGHT, block + k * a_column, height * sizeof(T));
                        block = copied, column = HEIGHT;
                    }
                    multiply_panels<T, NV>(
                        block, row, column, height, deep, panels, ceil_div(width, W), [&](int64_t r, int64_t p, T* sums) {
                            for (int v = 0; v < NV; ++v) {
                                const int64_t n = p * W + v * L, count = std::min<int64_t>(L, width - n);
                                if (count <= 0) break;
                                T* to = c + (m0 + r) * N + n0 + n;
                                V<T> sum = load<T>(sums + v * L);
                                if (k0) sum += load<T>(to, count);
                                else if (bias) sum += load<T>(bias + n0 + n, count);
                                if (apply_tanh && k0 + deep == K) sum = tanh<T>(sum);
                                store<T>(to, sum, count);
                            }
                        });
                }
            }
    });
}

// c (M, N) = a (M, K) · b (K, N) + bias (N), followed by tanh if `apply_tanh`. bias may be null; c is contiguous, a and b
// have any strides.
template <class T>
void gemm(
    int64_t M, int64_t N, int64_t K, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row,
    int64_t b_column, const T* bias, int32_t apply_tanh, T* c, int64_t threads) {
    const auto chosen = N <= LANES<T> ? gemm_by<T, 1> : gemm_by<T, 4>;
    chosen(M, N, K, a, a_row, a_column, b, b_row, b_column, bias, apply_tanh, c, threads);
}

// All steps of one recurrent layer and direction, forward and backward, on the CPU: the equations of models/gates/units.py.
//
// Arrays are contiguous. Rows are packed as in PackedSequence: sizes[t] rows belong to step t, N in all; a state has B =
// the largest size rows. Blocks of stacked weights stand in torch's order. Sequences do not depend on each other, so
// each thread takes some of them through all steps.
#pragma once

#include "product.h"

struct RecurrenceShape {  // as in recurrence.py
    const int64_t* sizes;  // rows of each step
    int64_t steps, hidden;
    int64_t threads;  // at most
    int32_t reverse;
    int32_t join[3];  // a Join for each gate, in the unit's order
    // UNIFORM, if any, is that of the gate which keeps the state; its refine gate has a block of its own.
};

// f(index of the step's first row in arrays of N rows, number of rows) for every step of sequences first to last.
template <class F>
void for_each_step(const RecurrenceShape& s, int64_t first, int64_t last, bool from_end, F f) {
    int64_t start = 0;
    if (from_end)
        for (int64_t t = 0; t < s.steps; ++t) start += s.sizes[t];
    for (int64_t i = 0; i < s.steps; ++i) {
        const int64_t size = s.sizes[from_end ? s.steps - 1 - i : i];
        if (from_end) start -= size;
        if (std::min(last, size) > first) f(start + first, std::min(last, size) - first);
        if (!from_end) start += size;
    }
}

// f(first, last) on ranges of sequences, one a thread. `products`: H × H matrices that each row is multiplied with.
template <class F>
void parallel_sequences(const RecurrenceShape& s, int products, F f) {
    int64_t rows = 0;
    for (int64_t t = 0; t < s.steps; ++t) rows += s.sizes[t];
    const int64_t B = s.steps ? std::max(s.sizes[0], s.sizes[s.steps - 1]) : 0;
    const int64_t threads = useful_threads(s.threads, B, 2.0 * rows * products * s.hidden * s.hidden);
    parallel(threads, B, [&](int64_t, int64_t first, int64_t last) { f(first, last); });
}

// f(column, number of columns) for each vector of a row.
template <class T, class F>
void for_each_vector(int64_t H, F f) {
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
Buffer<T> pack_by_unit(const T* weight, int64_t H) {
    Buffer<T> panels(H * ceil_div(H, LANES<T>) * WIDTH<T, BLOCKS>);
    pack<T, BLOCKS>(weight, H, BLOCKS * H, 1, H, H, panels.get());
    return panels;
}

constexpr int PLAIN_VECTORS = 4;  // vectors in a panel of a product that has no blocks

template <class T>
Buffer<T> pack_plain(const T* weight, int64_t K, int64_t H, int64_t row, int64_t column) {
    Buffer<T> panels(K * ceil_div(H, WIDTH<T, PLAIN_VECTORS>) * WIDTH<T, PLAIN_VECTORS>);
    pack<T, PLAIN_VECTORS>(weight, K, H, row, column, 0, panels.get());
    return panels;
}

// a (rows, K) · panels (K, H); f(row, column, number of columns, sums).
template <class T, class F>
void multiply(const T* a, int64_t stride, int64_t rows, int64_t K, const T* panels, int64_t H, F f) {
    multiply_panels<T, PLAIN_VECTORS>(
        a, stride, 1, rows, K, panels, ceil_div(H, WIDTH<T, PLAIN_VECTORS>), [&](int64_t r, int64_t p, const T* sums) {
            for (int v = 0; v < PLAIN_VECTORS; ++v) {
                const int64_t j = p * WIDTH<T, PLAIN_VECTORS> + v * LANES<T>, n = std::min<int64_t>(LANES<T>, H - j);
                if (n > 0) f(r, j, n, load<T>(sums + v * LANES<T>));
            }
        });
}

// `acts` holds W x + b, and is overwritten with the gates (i, f, o) and the candidate g; h and c are the current states
// (B, H). If f is UNIFORM, i is its refine gate, and the input gate is 1 − f'. before_h, before_c and tanh_c (N, H) are
// stored for the backward pass, or all null.
template <class T>
void lstm_forward(
    const RecurrenceShape& s, const T* weight, const T* feature, T* acts, T* h, T* c, T* output, T* before_h, T* before_c,
    T* tanh_c) {
    constexpr int L = LANES<T>;
    const int64_t H = s.hidden;
    const bool uniform = s.join[1] == UNIFORM;
    const auto panels = pack_by_unit<T, 4>(weight, H);
    parallel_sequences(s, 4, [&](int64_t first, int64_t last) {
        for_each_step(s, first, last, s.reverse, [&](int64_t at, int64_t rows) {
            if (before_h) {
                copy_rows(before_h + at * H, h + first * H, rows, H);
                copy_rows(before_c + at * H, c + first * H, rows, H);
            }
            multiply_panels<T, 4>(
                h + first * H, H, 1, rows, H, panels.get(), ceil_div(H, L), [&](int64_t r, int64_t p, const T* sums) {
                    const int64_t j = p * L, n = std::min<int64_t>(L, H - j), index = (at + r) * H + j;
                    T* a = acts + (at + r) * 4 * H + j;
                    T* cell = c + (first + r) * H + j;
                    const V<T> x = load_feature(feature, index, n);
                    const V<T> i = sigmoid<T>(load<T>(a, n) + load<T>(sums));
                    const V<T> f = sigmoid<T>(load<T>(a + H, n) + load<T>(sums + L));
                    const V<T> g = tanh<T>(load<T>(a + 2 * H, n) + load<T>(sums + 2 * L));
                    const V<T> o = sigmoid<T>(load<T>(a + 3 * H, n) + load<T>(sums + 3 * L));
                    const V<T> kept = uniform ? uniform_refine<T>(f, i) : join<T>(s.join[1], f, x);
                    const V<T> taken = uniform ? 1 - kept : join<T>(s.join[0], i, x);
                    const V<T> new_c = kept * load<T>(cell, n) + taken * g;
                    const V<T> tanh_new_c = tanh<T>(new_c);
                    store<T>(cell, new_c, n);
                    store<T>(output + index, join<T>(s.join[2], o, x) * tanh_new_c, n);
                    if (before_h) {
                        store<T>(a, i, n), store<T>(a + H, f, n), store<T>(a + 2 * H, g, n), store<T>(a + 3 * H, o, n);
                        store<T>(tanh_c + index, tanh_new_c, n);
                    }
                });
            copy_rows(h + first * H, output + at * H, rows, H);
        });
    });
}

// d_h and d_c are the current states' gradients (B, H), d_acts (N, 4 H) that of W x + b; d_feature (N, H) or null.
template <class T>
void lstm_backward(
    const RecurrenceShape& s, const T* weight, const T* feature, const T* acts, const T* before_c, const T* tanh_c,
    const T* d_output, T* d_h, T* d_c, T* d_acts, T* d_feature) {
    const int64_t H = s.hidden;
    const bool uniform = s.join[1] == UNIFORM;
    const auto panels = pack_plain<T>(weight, 4 * H, H, H, 1);
    parallel_sequences(s, 4, [&](int64_t first, int64_t last) {
        for_each_step(s, first, last, !s.reverse, [&](int64_t at, int64_t rows) {
            for (int64_t r = 0; r < rows; ++r)
                for_each_vector<T>(H, [&](int64_t j, int64_t n) {
                    const int64_t index = (at + r) * H + j, state = (first + r) * H + j;
                    const T* a = acts + (at + r) * 4 * H + j;
                    T* d = d_acts + (at + r) * 4 * H + j;
                    const V<T> x = load_feature(feature, index, n), tc = load<T>(tanh_c + index, n);
                    const V<T> i = load<T>(a, n), f = load<T>(a + H, n), g = load<T>(a + 2 * H, n);
                    const V<T> o = load<T>(a + 3 * H, n);
                    const V<T> dh = load<T>(d_h + state, n) + load<T>(d_output + index, n);
                    const V<T> dc = load<T>(d_c + state, n) + dh * join<T>(s.join[2], o, x) * (1 - tc * tc);
                    const V<T> previous = load<T>(before_c + index, n);
                    const V<T> kept = uniform ? uniform_refine<T>(f, i) : join<T>(s.join[1], f, x);
                    const V<T> taken = uniform ? 1 - kept : join<T>(s.join[0], i, x);
                    V<T> dx{}, di, df;
                    if (uniform) {
                        df = uniform_refine_backward<T>(dc * (previous - g), f, i, di);
                    } else {
                        di = gate_backward<T>(s.join[0], dc * g, i, x, dx);
                        df = gate_backward<T>(s.join[1], dc * previous, f, x, dx);
                    }
                    store<T>(d, di, n), store<T>(d + H, df, n);
                    store<T>(d + 2 * H, dc * taken * (1 - g * g), n);
                    store<T>(d + 3 * H, gate_backward<T>(s.join[2], dh * tc, o, x, dx), n);
                    store<T>(d_c + state, dc * kept, n);
                    if (d_feature) store<T>(d_feature + index, dx, n);
                });
            multiply<T>(
                d_acts + at * 4 * H, 4 * H, rows, 4 * H, panels.get(), H,
                [&](int64_t r, int64_t j, int64_t n, V<T> sum) { store<T>(d_h + (first + r) * H + j, sum, n); });
        });
    });
}

// `acts` holds W x + b, and is overwritten with the gates r, z and the candidate. before_h and the candidate's U h + b,
// candidate_hh, both (N, H), are stored for the backward pass, or null. bias (BLOCKS · H) is U's, or null. A fourth block
// is the refine gate of z, which is then UNIFORM.
template <class T, int BLOCKS>
void gru_forward_by(
    const RecurrenceShape& s, const T* weight, const T* bias, const T* feature, T* acts, T* h, T* output, T* before_h,
    T* candidate_hh) {
    constexpr int L = LANES<T>;
    const int64_t H = s.hidden;
    const auto panels = pack_by_unit<T, BLOCKS>(weight, H);
    parallel_sequences(s, BLOCKS, [&](int64_t first, int64_t last) {
        for_each_step(s, first, last, s.reverse, [&](int64_t at, int64_t rows) {
            if (before_h) copy_rows(before_h + at * H, h + first * H, rows, H);
            multiply_panels<T, BLOCKS>(
                h + first * H, H, 1, rows, H, panels.get(), ceil_div(H, L), [&](int64_t row, int64_t p, const T* sums) {
                    const int64_t j = p * L, count = std::min<int64_t>(L, H - j), index = (at + row) * H + j;
                    T* a = acts + (at + row) * BLOCKS * H + j;
                    const V<T> x = load_feature(feature, index, count);
                    V<T> u[BLOCKS];
                    for (int k = 0; k < BLOCKS; ++k)
                        u[k] = load<T>(sums + k * L) + (bias ? load<T>(bias + k * H + j, count) : V<T>{});
                    const V<T> r = sigmoid<T>(load<T>(a, count) + u[0]);
                    const V<T> z = sigmoid<T>(load<T>(a + H, count) + u[1]);
                    const V<T> n = tanh<T>(load<T>(a + 2 * H, count) + join<T>(s.join[0], r, x) * u[2]);
                    const V<T> previous = load<T>(h + (first + row) * H + j, count);
                    V<T> kept = join<T>(s.join[1], z, x);
                    if constexpr (BLOCKS == 4) {
                        const V<T> refine = sigmoid<T>(load<T>(a + 3 * H, count) + u[3]);
                        kept = uniform_refine<T>(z, refine);
                        if (before_h) store<T>(a + 3 * H, refine, count);
                    }
                    store<T>(output + index, n + kept * (previous - n), count);
                    if (before_h) {
                        store<T>(a, r, count), store<T>(a + H, z, count), store<T>(a + 2 * H, n, count);
                        store<T>(candidate_hh + index, u[2], count);
                    }
                });
            copy_rows(h + first * H, output + at * H, rows, H);
        });
    });
}

template <class T>
void gru_forward(
    const RecurrenceShape& s, const T* weight, const T* bias, const T* feature, T* acts, T* h, T* output, T* before_h,
    T* candidate_hh) {
    const auto run = s.join[1] == UNIFORM ? gru_forward_by<T, 4> : gru_forward_by<T, 3>;
    run(s, weight, bias, feature, acts, h, output, before_h, candidate_hh);
}

// d_acts (N, BLOCKS · H) is the gradient of W x + b, d_product that of U h + b: they differ in the candidate's block.
template <class T, int BLOCKS>
void gru_backward_by(
    const RecurrenceShape& s, const T* weight, const T* feature, const T* acts, const T* before_h, const T* candidate_hh,
    const T* d_output, T* d_h, T* d_acts, T* d_product, T* d_feature) {
    const int64_t H = s.hidden;
    const auto panels = pack_plain<T>(weight, BLOCKS * H, H, H, 1);
    parallel_sequences(s, BLOCKS, [&](int64_t first, int64_t last) {
        for_each_step(s, first, last, !s.reverse, [&](int64_t at, int64_t rows) {
            for (int64_t row = 0; row < rows; ++row)
                for_each_vector<T>(H, [&](int64_t j, int64_t count) {
                    const int64_t index = (at + row) * H + j, state = (first + row) * H + j;
                    const int64_t block = (at + row) * BLOCKS * H + j;
                    const V<T> x = load_feature(feature, index, count);
                    const V<T> r = load<T>(acts + block, count), z = load<T>(acts + block + H, count);
                    const V<T> n = load<T>(acts + block + 2 * H, count);
                    const V<T> dh = load<T>(d_h + state, count) + load<T>(d_output + index, count);
                    V<T> kept = join<T>(s.join[1], z, x), refine{};
                    if constexpr (BLOCKS == 4) {
                        refine = load<T>(acts + block + 3 * H, count);
                        kept = uniform_refine<T>(z, refine);
                    }
                    const V<T> dn = dh * (1 - kept) * (1 - n * n), d_kept = dh * (load<T>(before_h + index, count) - n);
                    V<T> dx{};
                    const V<T> dr = gate_backward<T>(s.join[0], dn * load<T>(candidate_hh + index, count), r, x, dx);
                    V<T> dz, d_refine{};
                    if constexpr (BLOCKS == 4)
                        dz = uniform_refine_backward<T>(d_kept, z, refine, d_refine);
                    else
                        dz = gate_backward<T>(s.join[1], d_kept, z, x, dx);
                    for (T* to : {d_acts, d_product}) {
                        store<T>(to + block, dr, count), store<T>(to + block + H, dz, count);
                        if (BLOCKS == 4) store<T>(to + block + 3 * H, d_refine, count);
                    }
                    store<T>(d_acts + block + 2 * H, dn, count);
                    store<T>(d_product + block + 2 * H, dn * join<T>(s.join[0], r, x), count);
                    store<T>(d_h + state, dh * kept, count);
                    if (d_feature) store<T>(d_feature + index, dx, count);
                });
            multiply<T>(
                d_product + at * BLOCKS * H, BLOCKS * H, rows, BLOCKS * H, panels.get(), H,
                [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                    T* to = d_h + (first + r) * H + j;
                    store<T>(to, load<T>(to, n) + sum, n);
                });
        });
    });
}

template <class T>
void gru_backward(
    const RecurrenceShape& s, const T* weight, const T* feature, const T* acts, const T* before_h, const T* candidate_hh,
    const T* d_output, T* d_h, T* d_acts, T* d_product, T* d_feature) {
    const auto run = s.join[1] == UNIFORM ? gru_backward_by<T, 4> : gru_backward_by<T, 3>;
    run(s, weight, feature, acts, before_h, candidate_hh, d_output, d_h, d_acts, d_product, d_feature);
}

// The MGU's gate f' from f; a third block of `acts` holds its refine gate if it is UNIFORM.
template <class T>
inline V<T> mgu_gate(const RecurrenceShape& s, V<T> f, const T* acts, const T* feature, int64_t index, int64_t n) {
    if (s.join[0] == UNIFORM) return uniform_refine<T>(f, load<T>(acts + 2 * s.hidden, n));
    return join<T>(s.join[0], f, load_feature(feature, index, n));
}

// `acts` holds W x + b, and is overwritten with the gate f, the candidate, and f's refine gate if f is UNIFORM; before_h
// is stored for the backward pass, or null.
template <class T>
void mgu_forward(const RecurrenceShape& s, const T* weight, const T* feature, T* acts, T* h, T* output, T* before_h) {
    const int64_t H = s.hidden, B = s.steps ? std::max(s.sizes[0], s.sizes[s.steps - 1]) : 0;
    const bool uniform = s.join[0] == UNIFORM;
    const int64_t width = (uniform ? 3 : 2) * H;
    const auto by_forget = pack_plain<T>(weight, H, H, 1, H), by_candidate = pack_plain<T>(weight + H * H, H, H, 1, H);
    const auto by_refine = pack_plain<T>(weight + (uniform ? 2 * H * H : 0), H, H, 1, H);
    const Buffer<T> buffer(B * H);
    parallel_sequences(s, uniform ? 3 : 2, [&](int64_t first, int64_t last) {
        T* state = h + first * H;
        T* gated_h = buffer.get() + first * H;  // f' h
        for_each_step(s, first, last, s.reverse, [&](int64_t at, int64_t rows) {
            if (before_h) copy_rows(before_h + at * H, state, rows, H);
            if (uniform)
                multiply<T>(state, H, rows, H, by_refine.get(), H, [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                    T* a = acts + (at + r) * width + 2 * H + j;
                    store<T>(a, sigmoid<T>(load<T>(a, n) + sum), n);
                });
            multiply<T>(state, H, rows, H, by_forget.get(), H, [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                T* a = acts + (at + r) * width + j;
                const V<T> f = sigmoid<T>(load<T>(a, n) + sum);
                store<T>(a, f, n);
                const V<T> refined = mgu_gate<T>(s, f, a, feature, (at + r) * H + j, n);
                store<T>(gated_h + r * H + j, refined * load<T>(state + r * H + j, n), n);
            });
            multiply<T>(gated_h, H, rows, H, by_candidate.get(), H, [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                T* a = acts + (at + r) * width + j;
                const V<T> candidate = tanh<T>(load<T>(a + H, n) + sum), previous = load<T>(state + r * H + j, n);
                const V<T> refined = mgu_gate<T>(s, load<T>(a, n), a, feature, (at + r) * H + j, n);
                store<T>(a + H, candidate, n);
                store<T>(output + (at + r) * H + j, previous + refined * (candidate - previous), n);
            });
            copy_rows(state, output + at * H, rows, H);
        });
    });
}

// `gated_h` (N, H) is overwritten with f' h, which the candidate's weights are multiplied with.
template <class T>
void mgu_backward(
    const RecurrenceShape& s, const T* weight, const T* feature, const T* acts, const T* before_h, const T* d_output, T* d_h,
    T* d_acts, T* gated_h, T* d_feature) {
    const int64_t H = s.hidden;
    const bool uniform = s.join[0] == UNIFORM;
    const int64_t width = (uniform ? 3 : 2) * H;
    const auto by_forget = pack_plain<T>(weight, H, H, H, 1), by_candidate = pack_plain<T>(weight + H * H, H, H, H, 1);
    const auto by_refine = pack_plain<T>(weight + (uniform ? 2 * H * H : 0), H, H, H, 1);
    parallel_sequences(s, uniform ? 3 : 2, [&](int64_t first, int64_t last) {
        T* gradient = d_h + first * H;
        for_each_step(s, first, last, !s.reverse, [&](int64_t at, int64_t rows) {
            for (int64_t r = 0; r < rows; ++r)
                for_each_vector<T>(H, [&](int64_t j, int64_t n) {
                    const int64_t index = (at + r) * H + j, block = (at + r) * width + j;
                    const V<T> refined = mgu_gate<T>(s, load<T>(acts + block, n), acts + block, feature, index, n);
                    const V<T> candidate = load<T>(acts + block + H, n);
                    const V<T> dh = load<T>(gradient + r * H + j, n) + load<T>(d_output + index, n);
                    store<T>(gradient + r * H + j, dh, n);
                    store<T>(d_acts + block + H, dh * refined * (1 - candidate * candidate), n);
                    store<T>(gated_h + index, refined * load<T>(before_h + index, n), n);
                });
            multiply<T>(
                d_acts + at * width + H, width, rows, H, by_candidate.get(), H,
                [&](int64_t r, int64_t j, int64_t n, V<T> d_gated) {
                    const int64_t index = (at + r) * H + j, block = (at + r) * width + j;
                    const V<T> x = load_feature(feature, index, n), f = load<T>(acts + block, n);
                    const V<T> previous = load<T>(before_h + index, n), candidate = load<T>(acts + block + H, n);
                    const V<T> refined = mgu_gate<T>(s, f, acts + block, feature, index, n);
                    const V<T> dh = load<T>(gradient + r * H + j, n);
                    const V<T> d_refined = dh * (candidate - previous) + d_gated * previous;
                    V<T> dx{}, df, d_refine;
                    if (uniform) {
                        df = uniform_refine_backward<T>(d_refined, f, load<T>(acts + block + 2 * H, n), d_refine);
                        store<T>(d_acts + block + 2 * H, d_refine, n);
                    } else {
                        df = gate_backward<T>(s.join[0], d_refined, f, x, dx);
                    }
                    store<T>(d_acts + block, df, n);
                    store<T>(gradient + r * H + j, dh * (1 - refined) + d_gated * refined, n);
                    if (d_feature) store<T>(d_feature + index, dx, n);
                });
            const auto add = [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                T* to = gradient + r * H + j;
                store<T>(to, load<T>(to, n) + sum, n);
            };
            multiply<T>(d_acts + at * width, width, rows, H, by_forget.get(), H, add);
            if (uniform) multiply<T>(d_acts + at * width + 2 * H, width, rows, H, by_refine.get(), H, add);
        });
    });
}


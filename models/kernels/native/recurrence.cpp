// All steps of one recurrent layer and direction, forwards and backwards, on the CPU: the equations of models/units.py.
//
// Arrays are contiguous. Rows are packed as in PackedSequence: sizes[t] rows belong to step t, N in all; a state has B =
// the largest size rows. Blocks of stacked weights stand in torch's order. What a forward pass keeps is what the Python
// loops of models/fused_*.py keep, so either's backward pass can follow.
// Sequences do not meet in a recurrence, so each thread takes some of them through all steps.

#include "convolution.h"
#include "steps.h"

namespace {

// `acts` has W x + b, and afterwards the gates (i, f, o) and the candidate g; h and c are the running states (B, H).
// before_h, before_c and tanh_c are kept for the backward pass, or all null.
template <class T>
void lstm_forward(
    const Steps& s, const T* weight, const T* feature, T* acts, T* h, T* c, T* output, T* before_h, T* before_c,
    T* tanh_c) {
    constexpr int L = LANES<T>;
    const int64_t H = s.hidden;
    const auto panels = by_hidden_unit<T, 4>(weight, H);
    each_share(s, 4, [&](int64_t first, int64_t last) {
        each_step(s, first, last, s.reverse, [&](int64_t at, int64_t rows) {
            if (before_h) {
                copy_rows(before_h + at * H, h + first * H, rows, H);
                copy_rows(before_c + at * H, c + first * H, rows, H);
            }
            each_tile<T, 4>(
                h + first * H, H, 1, rows, H, panels.get(), ceil_div(H, L), [&](int64_t r, int64_t p, const T* sums) {
                    const int64_t j = p * L, n = std::min<int64_t>(L, H - j), place = (at + r) * H + j;
                    T* a = acts + (at + r) * 4 * H + j;
                    T* cell = c + (first + r) * H + j;
                    const V<T> x = load_feature(feature, place, n);
                    const V<T> i = sigmoid<T>(load<T>(a, n) + load<T>(sums));
                    const V<T> f = sigmoid<T>(load<T>(a + H, n) + load<T>(sums + L));
                    const V<T> g = tanh<T>(load<T>(a + 2 * H, n) + load<T>(sums + 2 * L));
                    const V<T> o = sigmoid<T>(load<T>(a + 3 * H, n) + load<T>(sums + 3 * L));
                    const V<T> new_c = join<T>(s.join[1], f, x) * load<T>(cell, n) + join<T>(s.join[0], i, x) * g;
                    const V<T> squashed = tanh<T>(new_c);
                    store<T>(cell, new_c, n);
                    store<T>(output + place, join<T>(s.join[2], o, x) * squashed, n);
                    if (before_h) {
                        store<T>(a, i, n), store<T>(a + H, f, n), store<T>(a + 2 * H, g, n), store<T>(a + 3 * H, o, n);
                        store<T>(tanh_c + place, squashed, n);
                    }
                });
            copy_rows(h + first * H, output + at * H, rows, H);
        });
    });
}

// d_h and d_c are the running gradients (B, H); d_pre (N, 4 H) that of W x + b; d_feature (N, H) or null.
template <class T>
void lstm_backward(
    const Steps& s, const T* weight, const T* feature, const T* acts, const T* before_c, const T* tanh_c,
    const T* d_output, T* d_h, T* d_c, T* d_pre, T* d_feature) {
    const int64_t H = s.hidden;
    const auto panels = plain_panels<T>(weight, 4 * H, H, H, 1);
    each_share(s, 4, [&](int64_t first, int64_t last) {
        each_step(s, first, last, !s.reverse, [&](int64_t at, int64_t rows) {
            for (int64_t r = 0; r < rows; ++r)
                each_vector<T>(H, [&](int64_t j, int64_t n) {
                    const int64_t place = (at + r) * H + j, state = (first + r) * H + j;
                    const T* a = acts + (at + r) * 4 * H + j;
                    T* d = d_pre + (at + r) * 4 * H + j;
                    const V<T> x = load_feature(feature, place, n), squashed = load<T>(tanh_c + place, n);
                    const V<T> i = load<T>(a, n), f = load<T>(a + H, n), g = load<T>(a + 2 * H, n);
                    const V<T> o = load<T>(a + 3 * H, n);
                    const V<T> dh = load<T>(d_h + state, n) + load<T>(d_output + place, n);
                    const V<T> dc =
                        load<T>(d_c + state, n) + dh * join<T>(s.join[2], o, x) * (1 - squashed * squashed);
                    V<T> dx{};
                    store<T>(d, through<T>(s.join[0], dc * g, i, x, dx), n);
                    store<T>(d + H, through<T>(s.join[1], dc * load<T>(before_c + place, n), f, x, dx), n);
                    store<T>(d + 2 * H, dc * join<T>(s.join[0], i, x) * (1 - g * g), n);
                    store<T>(d + 3 * H, through<T>(s.join[2], dh * squashed, o, x, dx), n);
                    store<T>(d_c + state, dc * join<T>(s.join[1], f, x), n);
                    if (d_feature) store<T>(d_feature + place, dx, n);
                });
            multiply<T>(
                d_pre + at * 4 * H, 4 * H, rows, 4 * H, panels.get(), H,
                [&](int64_t r, int64_t j, int64_t n, V<T> sum) { store<T>(d_h + (first + r) * H + j, sum, n); });
        });
    });
}

// `acts` has W x + b, and afterwards the gates r, z and the candidate; `inner` (N, H), the candidate's U h + b, and
// before_h are kept for the backward pass, or null; bias (3 H) is U's, or null.
template <class T>
void gru_forward(
    const Steps& s, const T* weight, const T* bias, const T* feature, T* acts, T* h, T* output, T* before_h, T* inner) {
    constexpr int L = LANES<T>;
    const int64_t H = s.hidden;
    const auto panels = by_hidden_unit<T, 3>(weight, H);
    each_share(s, 3, [&](int64_t first, int64_t last) {
        each_step(s, first, last, s.reverse, [&](int64_t at, int64_t rows) {
            if (before_h) copy_rows(before_h + at * H, h + first * H, rows, H);
            each_tile<T, 3>(
                h + first * H, H, 1, rows, H, panels.get(), ceil_div(H, L), [&](int64_t row, int64_t p, const T* sums) {
                    const int64_t j = p * L, count = std::min<int64_t>(L, H - j), place = (at + row) * H + j;
                    T* a = acts + (at + row) * 3 * H + j;
                    const V<T> x = load_feature(feature, place, count);
                    V<T> u[3];
                    for (int k = 0; k < 3; ++k)
                        u[k] = load<T>(sums + k * L) + (bias ? load<T>(bias + k * H + j, count) : V<T>{});
                    const V<T> r = sigmoid<T>(load<T>(a, count) + u[0]);
                    const V<T> z = sigmoid<T>(load<T>(a + H, count) + u[1]);
                    const V<T> n = tanh<T>(load<T>(a + 2 * H, count) + join<T>(s.join[0], r, x) * u[2]);
                    const V<T> was = load<T>(h + (first + row) * H + j, count);
                    store<T>(output + place, n + join<T>(s.join[1], z, x) * (was - n), count);
                    if (before_h) {
                        store<T>(a, r, count), store<T>(a + H, z, count), store<T>(a + 2 * H, n, count);
                        store<T>(inner + place, u[2], count);
                    }
                });
            copy_rows(h + first * H, output + at * H, rows, H);
        });
    });
}

// d_pre (N, 3 H) is the gradient of W x + b, d_product (N, 3 H) that of U h + b: they differ in the candidate's block.
template <class T>
void gru_backward(
    const Steps& s, const T* weight, const T* feature, const T* acts, const T* before_h, const T* inner,
    const T* d_output, T* d_h, T* d_pre, T* d_product, T* d_feature) {
    const int64_t H = s.hidden;
    const auto panels = plain_panels<T>(weight, 3 * H, H, H, 1);
    each_share(s, 3, [&](int64_t first, int64_t last) {
        each_step(s, first, last, !s.reverse, [&](int64_t at, int64_t rows) {
            for (int64_t row = 0; row < rows; ++row)
                each_vector<T>(H, [&](int64_t j, int64_t count) {
                    const int64_t place = (at + row) * H + j, state = (first + row) * H + j;
                    const int64_t block = (at + row) * 3 * H + j;
                    const V<T> x = load_feature(feature, place, count);
                    const V<T> r = load<T>(acts + block, count), z = load<T>(acts + block + H, count);
                    const V<T> n = load<T>(acts + block + 2 * H, count);
                    const V<T> dh = load<T>(d_h + state, count) + load<T>(d_output + place, count);
                    const V<T> kept = join<T>(s.join[1], z, x);
                    const V<T> dn = dh * (1 - kept) * (1 - n * n);
                    V<T> dx{};
                    const V<T> dr = through<T>(s.join[0], dn * load<T>(inner + place, count), r, x, dx);
                    const V<T> dz = through<T>(s.join[1], dh * (load<T>(before_h + place, count) - n), z, x, dx);
                    for (T* to : {d_pre, d_product})
                        store<T>(to + block, dr, count), store<T>(to + block + H, dz, count);
                    store<T>(d_pre + block + 2 * H, dn, count);
                    store<T>(d_product + block + 2 * H, dn * join<T>(s.join[0], r, x), count);
                    store<T>(d_h + state, dh * kept, count);
                    if (d_feature) store<T>(d_feature + place, dx, count);
                });
            multiply<T>(
                d_product + at * 3 * H, 3 * H, rows, 3 * H, panels.get(), H,
                [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                    T* to = d_h + (first + r) * H + j;
                    store<T>(to, load<T>(to, n) + sum, n);
                });
        });
    });
}

// `acts` has W x + b, and afterwards the gate f and the candidate; before_h is kept for the backward pass, or null.
template <class T>
void mgu_forward(const Steps& s, const T* weight, const T* feature, T* acts, T* h, T* output, T* before_h) {
    const int64_t H = s.hidden, B = s.count ? std::max(s.sizes[0], s.sizes[s.count - 1]) : 0;
    const auto to_forget = plain_panels<T>(weight, H, H, 1, H), to_new = plain_panels<T>(weight + H * H, H, H, 1, H);
    const Buffer<T> passed(B * H);  // f' h
    each_share(s, 2, [&](int64_t first, int64_t last) {
        T* state = h + first * H;
        T* gated = passed.get() + first * H;
        each_step(s, first, last, s.reverse, [&](int64_t at, int64_t rows) {
            if (before_h) copy_rows(before_h + at * H, state, rows, H);
            multiply<T>(state, H, rows, H, to_forget.get(), H, [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                T* a = acts + (at + r) * 2 * H + j;
                const V<T> f = sigmoid<T>(load<T>(a, n) + sum);
                store<T>(a, f, n);
                const V<T> open = join<T>(s.join[0], f, load_feature(feature, (at + r) * H + j, n));
                store<T>(gated + r * H + j, open * load<T>(state + r * H + j, n), n);
            });
            multiply<T>(gated, H, rows, H, to_new.get(), H, [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                T* a = acts + (at + r) * 2 * H + j;
                const V<T> fresh = tanh<T>(load<T>(a + H, n) + sum), was = load<T>(state + r * H + j, n);
                const V<T> open = join<T>(s.join[0], load<T>(a, n), load_feature(feature, (at + r) * H + j, n));
                store<T>(a + H, fresh, n);
                store<T>(output + (at + r) * H + j, was + open * (fresh - was), n);
            });
            copy_rows(state, output + at * H, rows, H);
        });
    });
}

// `passed` (N, H) becomes f' h, which the candidate's weights were multiplied with.
template <class T>
void mgu_backward(
    const Steps& s, const T* weight, const T* feature, const T* acts, const T* before_h, const T* d_output, T* d_h,
    T* d_pre, T* passed, T* d_feature) {
    const int64_t H = s.hidden;
    const auto by_forget = plain_panels<T>(weight, H, H, H, 1), by_new = plain_panels<T>(weight + H * H, H, H, H, 1);
    each_share(s, 2, [&](int64_t first, int64_t last) {
        T* gradient = d_h + first * H;
        each_step(s, first, last, !s.reverse, [&](int64_t at, int64_t rows) {
            for (int64_t r = 0; r < rows; ++r)
                each_vector<T>(H, [&](int64_t j, int64_t n) {
                    const int64_t place = (at + r) * H + j, block = (at + r) * 2 * H + j;
                    const V<T> open = join<T>(s.join[0], load<T>(acts + block, n), load_feature(feature, place, n));
                    const V<T> fresh = load<T>(acts + block + H, n);
                    const V<T> dh = load<T>(gradient + r * H + j, n) + load<T>(d_output + place, n);
                    store<T>(gradient + r * H + j, dh, n);
                    store<T>(d_pre + block + H, dh * open * (1 - fresh * fresh), n);
                    store<T>(passed + place, open * load<T>(before_h + place, n), n);
                });
            multiply<T>(
                d_pre + at * 2 * H + H, 2 * H, rows, H, by_new.get(), H,
                [&](int64_t r, int64_t j, int64_t n, V<T> d_passed) {
                    const int64_t place = (at + r) * H + j, block = (at + r) * 2 * H + j;
                    const V<T> x = load_feature(feature, place, n), f = load<T>(acts + block, n);
                    const V<T> was = load<T>(before_h + place, n), fresh = load<T>(acts + block + H, n);
                    const V<T> open = join<T>(s.join[0], f, x), dh = load<T>(gradient + r * H + j, n);
                    V<T> dx{};
                    const V<T> d_open = dh * (fresh - was) + d_passed * was;
                    store<T>(d_pre + block, through<T>(s.join[0], d_open, f, x, dx), n);
                    store<T>(gradient + r * H + j, dh * (1 - open) + d_passed * open, n);
                    if (d_feature) store<T>(d_feature + place, dx, n);
                });
            multiply<T>(
                d_pre + at * 2 * H, 2 * H, rows, H, by_forget.get(), H,
                [&](int64_t r, int64_t j, int64_t n, V<T> sum) {
                    T* to = gradient + r * H + j;
                    store<T>(to, load<T>(to, n) + sum, n);
                });
        });
    });
}

// The function behind a C interface: 0, or 1 where memory is short, for no exception may leave the library.
template <auto function>
struct Exported;

template <class... Arguments, void (*function)(Arguments...)>
struct Exported<function> {
    static int call(Arguments... arguments) {
        try {
            function(arguments...);
            return 0;
        } catch (...) {
            return 1;
        }
    }
};

template <class T>
void* find(const char* name) {
    const std::pair<const char*, void*> functions[] = {
        {"lstm_forward", (void*)Exported<lstm_forward<T>>::call},
        {"lstm_backward", (void*)Exported<lstm_backward<T>>::call},
        {"gru_forward", (void*)Exported<gru_forward<T>>::call},
        {"gru_backward", (void*)Exported<gru_backward<T>>::call},
        {"mgu_forward", (void*)Exported<mgu_forward<T>>::call},
        {"mgu_backward", (void*)Exported<mgu_backward<T>>::call},
        {"gemm", (void*)Exported<gemm<T>>::call},
        {"panels", (void*)Exported<panels<T>>::call},
        {"lay_out", (void*)Exported<lay_out<T>>::call},
        {"convolve", (void*)Exported<convolve<T>>::call},
        {"differentiate", (void*)Exported<differentiate<T>>::call},
    };
    for (const auto& [known, function] : functions)
        if (!std::strcmp(known, name)) return function;
    return nullptr;
}

}  // namespace

#define VISIBLE extern "C" __attribute__((visibility("default")))

// What the library was built from: see models/native/library.py.
VISIBLE const char* native_key() { return NATIVE_KEY; }

// Address of a function for elements of 4 or 8 bytes; null where there is none.
VISIBLE void* native_function(const char* name, int bytes) { return bytes == 4 ? find<float>(name) : find<double>(name); }

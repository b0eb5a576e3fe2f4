// 3 × 3 convolutions with stride 1 and padding 1 by minimal filtering: a quarter of the multiplications.
//
// Lavin and Gray, arXiv 1509.09308: y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for each tile d of the input; the products of all
// tiles and channels at one point of the transform are one matrix product. Gradients are the same equation transposed.
// Arrays are channels-last and contiguous: inputs (B, H, W, C), outputs (B, H, W, K), weights (K, 3, 3, C).
#pragma once

#include "product.h"

struct ConvolutionShape {  // as in convolution.py
    int64_t images, height, width, in, out;
    int64_t threads;  // at most
};

// One dimension of a tile: OUT outputs from IN inputs by POINTS products; its inputs start BEFORE pixels before its outputs.
struct Four {  // F(4, 3) at 0, ±1, ±2, ∞
    static constexpr int IN = 6, OUT = 4, POINTS = 6, BEFORE = 1;
    template <class X>
    static void inputs(const X* d, X* v) {  // Bᵀ d
        const X even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], wide = d[4] - d[2], twice = 2 * (d[3] - d[1]);
        v[0] = 4 * d[0] - 5 * d[2] + d[4];
        v[1] = even + odd, v[2] = even - odd, v[3] = wide + twice, v[4] = wide - twice;
        v[5] = 4 * d[1] - 5 * d[3] + d[5];
    }
    template <class X>
    static void outputs(const X* m, X* y) {  // Aᵀ m
        const X sum1 = m[1] + m[2], diff1 = m[1] - m[2], sum2 = m[3] + m[4], diff2 = m[3] - m[4];
        y[0] = m[0] + sum1 + sum2, y[1] = diff1 + 2 * diff2, y[2] = sum1 + 4 * sum2, y[3] = diff1 + 8 * diff2 + m[5];
    }
    template <class X>
    static void from_outputs(const X* y, X* m) {  // A y
        const X sum1 = y[0] + y[2], diff1 = y[1] + y[3], sum2 = y[0] + 4 * y[2], diff2 = 2 * y[1] + 8 * y[3];
        m[0] = y[0], m[1] = sum1 + diff1, m[2] = sum1 - diff1, m[3] = sum2 + diff2, m[4] = sum2 - diff2, m[5] = y[3];
    }
    template <class X>
    static void weights(const X* g, X* u) {  // G g
        const X sum1 = (g[0] + g[2]) / -6, sum2 = g[0] / 24 + g[2] / 6;
        u[0] = g[0] / 4, u[1] = sum1 - g[1] / 6, u[2] = sum1 + g[1] / 6;
        u[3] = sum2 + g[1] / 12, u[4] = sum2 - g[1] / 12, u[5] = g[2];
    }
    template <class X>
    static void to_weights(const X* u, X* g) {  // Gᵀ u
        const X sum1 = (u[1] + u[2]) / 6, sum2 = u[3] + u[4];
        g[0] = u[0] / 4 - sum1 + sum2 / 24, g[1] = (u[2] - u[1]) / 6 + (u[3] - u[4]) / 12, g[2] = sum2 / 6 - sum1 + u[5];
    }
};

struct Pair {  // for maps of two rows: all rows beyond them are 0
    static constexpr int IN = 2, OUT = 2, POINTS = 3, BEFORE = 0;
    template <class X>
    static void inputs(const X* d, X* v) { v[0] = d[0] + d[1], v[1] = d[1], v[2] = d[0]; }
    template <class X>
    static void outputs(const X* m, X* y) { y[0] = m[0] + m[1], y[1] = m[0] + m[2]; }
    template <class X>
    static void from_outputs(const X* y, X* m) { m[0] = y[0] + y[1], m[1] = y[0], m[2] = y[1]; }
    template <class X>
    static void weights(const X* g, X* u) { u[0] = g[1], u[1] = g[2] - g[1], u[2] = g[0] - g[1]; }
    template <class X>
    static void to_weights(const X* u, X* g) { g[0] = u[2], g[1] = u[0] - u[1] - u[2], g[2] = u[1]; }
};

// A tile's two dimensions: ROWS is Four or Pair, columns are Four's.
template <class ROWS>
struct Tile {
    static constexpr int POINTS = ROWS::POINTS * Four::POINTS;

    template <class X>
    static void inputs(const X (&d)[ROWS::IN][Four::IN], X* v) {
        both<ROWS::IN, Four::IN, ROWS::POINTS, Four::POINTS>(
            d, v, [](const X* a, X* b) { ROWS::inputs(a, b); }, [](const X* a, X* b) { Four::inputs(a, b); });
    }
    template <class X>
    static void outputs(const X (&m)[ROWS::POINTS][Four::POINTS], X* y) {
        both<ROWS::POINTS, Four::POINTS, ROWS::OUT, Four::OUT>(
            m, y, [](const X* a, X* b) { ROWS::outputs(a, b); }, [](const X* a, X* b) { Four::outputs(a, b); });
    }
    template <class X>
    static void from_outputs(const X (&y)[ROWS::OUT][Four::OUT], X* m) {
        both<ROWS::OUT, Four::OUT, ROWS::POINTS, Four::POINTS>(
            y, m, [](const X* a, X* b) { ROWS::from_outputs(a, b); }, [](const X* a, X* b) { Four::from_outputs(a, b); });
    }
    template <class X>
    static void weights(const X (&g)[3][3], X* u) {
        both<3, 3, ROWS::POINTS, Four::POINTS>(
            g, u, [](const X* a, X* b) { ROWS::weights(a, b); }, [](const X* a, X* b) { Four::weights(a, b); });
    }
    template <class X>
    static void to_weights(const X (&u)[ROWS::POINTS][Four::POINTS], X* g) {
        both<ROWS::POINTS, Four::POINTS, 3, 3>(
            u, g, [](const X* a, X* b) { ROWS::to_weights(a, b); }, [](const X* a, X* b) { Four::to_weights(a, b); });
    }

  private:
    template <int FROM_ROWS, int FROM_COLUMNS, int TO_ROWS, int TO_COLUMNS, class X, class R, class C>
    static void both(const X (&from)[FROM_ROWS][FROM_COLUMNS], X* to, R rows, C columns) {
        X half[TO_ROWS][FROM_COLUMNS];
#pragma GCC unroll 6
        for (int c = 0; c < FROM_COLUMNS; ++c) {
            X column[FROM_ROWS], transformed[TO_ROWS];
#pragma GCC unroll 6
            for (int r = 0; r < FROM_ROWS; ++r) column[r] = from[r][c];
            rows(column, transformed);
#pragma GCC unroll 6
            for (int r = 0; r < TO_ROWS; ++r) half[r][c] = transformed[r];
        }
#pragma GCC unroll 6
        for (int r = 0; r < TO_ROWS; ++r) columns(half[r], to + r * TO_COLUMNS);
    }
};

// Positions of tiles in feature maps.
template <class ROWS>
struct Tiling {
    const ConvolutionShape& shape;
    int64_t down, across;
    explicit Tiling(const ConvolutionShape& s)
        : shape(s), down(ceil_div(s.height, ROWS::OUT)), across(ceil_div(s.width, Four::OUT)) {}
    int64_t count() const { return shape.images * down * across; }

    // Pointers to R × C pixels of a tile; those beyond the map's edges are `outside`.
    template <int R, int C, class T>
    void pixels(
        int64_t tile, int before_row, int before_column, T* map, int64_t channels, T* outside, T* (&at)[R][C]) const {
        const int64_t image = tile / (down * across), y0 = tile / across % down * ROWS::OUT - before_row;
        const int64_t x0 = tile % across * Four::OUT - before_column;
        for (int r = 0; r < R; ++r)
            for (int c = 0; c < C; ++c) {
                const int64_t y = y0 + r, x = x0 + c;
                const bool inside = y >= 0 && y < shape.height && x >= 0 && x < shape.width;
                at[r][c] = inside ? map + ((image * shape.height + y) * shape.width + x) * channels : outside;
            }
    }
};

// Bᵀ d B, or with GRADIENT A y Aᵀ, of tiles `first` to `last`: point p of tile t and channel c is written to
// to[p · stride + t · channels + c], or with `panel` > 0 to panels of that many channels.
template <class T, class ROWS, bool GRADIENT>
void transform_tiles(
    const Tiling<ROWS>& tiling, const T* map, int64_t channels, int64_t first, int64_t last, const T* zeros, T* to,
    int64_t stride, int64_t panel) {
    constexpr int R = GRADIENT ? ROWS::OUT : ROWS::IN, C = GRADIENT ? Four::OUT : Four::IN, L = LANES<T>;
    constexpr int BEFORE_ROW = GRADIENT ? 0 : ROWS::BEFORE, BEFORE_COLUMN = GRADIENT ? 0 : Four::BEFORE;
    const int64_t tiles = last - first;
    for (int64_t t = 0; t < tiles; ++t) {
        const T* at[R][C];
        tiling.pixels(first + t, BEFORE_ROW, BEFORE_COLUMN, map, channels, zeros, at);
        for (int64_t c = 0; c < channels; c += L) {
            const int64_t n = std::min<int64_t>(L, channels - c);
            V<T> d[R][C], v[Tile<ROWS>::POINTS];
            for (int i = 0; i < R; ++i)
                for (int j = 0; j < C; ++j) d[i][j] = load<T>(at[i][j] + c, n);
            if constexpr (GRADIENT) Tile<ROWS>::from_outputs(d, v);
            else Tile<ROWS>::inputs(d, v);
            T* target = to + (panel ? (c / panel * tiles + t) * panel + c % panel : t * channels + c);
            for (int p = 0; p < Tile<ROWS>::POINTS; ++p) store<T>(target + p * stride, v[p], n);
        }
    }
}

constexpr int64_t whole_lines(int64_t n) { return ceil_div(n, 16) * 16; }  // rounded up to whole cache lines

constexpr int PANEL_VECTORS = 2;  // vectors in a panel

template <class T>
int64_t padded(int64_t channels) { return ceil_div(channels, WIDTH<T, PANEL_VECTORS>) * WIDTH<T, PANEL_VECTORS>; }

// G g Gᵀ as panels, for the convolution or with `transposed` for the gradient of its inputs.
template <class T, class ROWS>
void transform_weight_by(const ConvolutionShape& shape, const T* weights, bool transposed, T* panels) {
    constexpr int L = LANES<T>, P = Tile<ROWS>::POINTS;
    const int64_t C = shape.in, K = shape.out;
    Buffer<T> buffer(P * K * C);
    T* points = buffer.get();
    for (int64_t k = 0; k < K; ++k)
        for (int64_t c = 0; c < C; c += L) {
            const int64_t n = std::min<int64_t>(L, C - c);
            V<T> g[3][3], u[P];
            for (int i = 0; i < 9; ++i) g[i / 3][i % 3] = load<T>(weights + (k * 9 + (transposed ? 8 - i : i)) * C + c, n);
            Tile<ROWS>::weights(g, u);
            for (int p = 0; p < P; ++p) store<T>(points + (p * K + k) * C + c, u[p], n);
        }
    for (int p = 0; p < P; ++p)
        if (transposed) pack<T, PANEL_VECTORS>(points + p * K * C, K, C, C, 1, 0, panels + p * K * padded<T>(C));
        else pack<T, PANEL_VECTORS>(points + p * K * C, C, K, 1, C, 0, panels + p * C * padded<T>(K));
}

// outputs = inputs * transformed weights + bias (K); bias may be null.
template <class T, class ROWS>
void convolve_by(const ConvolutionShape& shape, const T* inputs, const T* panels, const T* bias, T* outputs) {
    constexpr int L = LANES<T>, P = Tile<ROWS>::POINTS;
    constexpr int64_t BLOCK = 24;
    const Tiling<ROWS> tiling(shape);
    const int64_t C = shape.in, K = shape.out, wide = padded<T>(K), blocks = ceil_div(tiling.count(), BLOCK);
    const int64_t threads = std::min(
        blocks, useful_threads(shape.threads, tiling.count(), 2.0 * tiling.count() * P * C * K));
    const int64_t workspace = P * BLOCK * (whole_lines(C) + wide), zeros_size = whole_lines(std::max(C, K));
    Buffer<T> buffer(2 * zeros_size + threads * workspace);
    T *zeros = buffer.get(), *discarded = zeros + zeros_size;
    std::memset(zeros, 0, zeros_size * sizeof(T));
    parallel(threads, blocks, [&](int64_t index, int64_t first_block, int64_t last_block) {
        T* transformed = buffer.get() + 2 * zeros_size + index * workspace;
        T* products = transformed + P * BLOCK * whole_lines(C);
        for (int64_t block = first_block; block < last_block; ++block) {
            const int64_t first = block * BLOCK, last = std::min(tiling.count(), first + BLOCK), tiles = last - first;
            transform_tiles<T, ROWS, false>(tiling, inputs, C, first, last, zeros, transformed, tiles * C, 0);
            for (int p = 0; p < P; ++p) {
                T* to = products + p * tiles * wide;
                multiply_panels<T, PANEL_VECTORS>(
                    transformed + p * tiles * C, C, 1, tiles, C, panels + p * C * wide, wide / WIDTH<T, PANEL_VECTORS>,
                    [&](int64_t t, int64_t panel, const T* sums) {
                        for (int v = 0; v < PANEL_VECTORS; ++v)
                            store<T>(to + t * wide + panel * WIDTH<T, PANEL_VECTORS> + v * L, load<T>(sums + v * L));
                    });
            }
            for (int64_t t = 0; t < tiles; ++t) {
                T* at[ROWS::OUT][Four::OUT];
                tiling.pixels(first + t, 0, 0, outputs, K, discarded, at);
                for (int64_t k = 0; k < K; k += L) {
                    const int64_t n = std::min<int64_t>(L, K - k);
                    V<T> m[ROWS::POINTS][Four::POINTS], y[ROWS::OUT * Four::OUT];
                    for (int p = 0; p < P; ++p)
                        m[p / Four::POINTS][p % Four::POINTS] = load<T>(products + (p * tiles + t) * wide + k);
                    Tile<ROWS>::outputs(m, y);
                    const V<T> added = bias ? load<T>(bias + k, n) : V<T>{};
                    for (int i = 0; i < ROWS::OUT * Four::OUT; ++i)
                        store<T>(at[i / Four::OUT][i % Four::OUT] + k, y[i] + added, n);
                }
            }
        }
    });
}

// The weights' gradient (K, 3, 3, C).
template <class T, class ROWS>
void weight_gradient_by(const ConvolutionShape& shape, const T* inputs, const T* d_outputs, T* d_weights) {
    constexpr int L = LANES<T>, P = Tile<ROWS>::POINTS;
    constexpr int64_t BLOCK = 48, W = WIDTH<T, PANEL_VECTORS>;
    const Tiling<ROWS> tiling(shape);
    const int64_t C = shape.in, K = shape.out, wide = padded<T>(C), blocks = ceil_div(tiling.count(), BLOCK);
    const int64_t wanted = std::max<int64_t>(
        1, std::min(blocks / 4, useful_threads(shape.threads, tiling.count(), 2.0 * tiling.count() * P * C * K)));
    const int64_t threads = ceil_div(blocks, ceil_div(blocks, wanted));  // each has blocks: all their sums are added
    const int64_t zeros_size = whole_lines(std::max(C, K)), sums_size = P * K * wide;
    const int64_t workspace = P * BLOCK * (wide + whole_lines(K)) + sums_size;
    Buffer<T> buffer(zeros_size + threads * workspace);
    T* zeros = buffer.get();
    std::memset(zeros, 0, zeros_size * sizeof(T));
    parallel(threads, blocks, [&](int64_t index, int64_t first_block, int64_t last_block) {
        T* sums = zeros + zeros_size + index * workspace;
        std::memset(sums, 0, sums_size * sizeof(T));
        T *panels = sums + sums_size, *gradients = panels + P * BLOCK * wide;
        for (int64_t block = first_block; block < last_block; ++block) {
            const int64_t first = block * BLOCK, last = std::min(tiling.count(), first + BLOCK), tiles = last - first;
            transform_tiles<T, ROWS, false>(tiling, inputs, C, first, last, zeros, panels, tiles * wide, W);
            transform_tiles<T, ROWS, true>(tiling, d_outputs, K, first, last, zeros, gradients, tiles * K, 0);
            for (int p = 0; p < P; ++p) {
                T* to = sums + p * K * wide;
                multiply_panels<T, PANEL_VECTORS>(
                    gradients + p * tiles * K, 1, K, K, tiles, panels + p * tiles * wide, wide / W,
                    [&](int64_t k, int64_t panel, const T* products) {
                        T* at = to + k * wide + panel * W;
                        for (int v = 0; v < PANEL_VECTORS; ++v)
                            store<T>(at + v * L, load<T>(at + v * L) + load<T>(products + v * L));
                    });
            }
        }
    });
    for (int64_t k = 0; k < K; ++k)
        for (int64_t c = 0; c < C; c += L) {
            V<T> u[ROWS::POINTS][Four::POINTS], g[9];
            for (int p = 0; p < P; ++p) {
                V<T>& sum = u[p / Four::POINTS][p % Four::POINTS];
                sum = V<T>{};
                for (int64_t i = 0; i < threads; ++i)
                    sum += load<T>(zeros + zeros_size + i * workspace + (p * K + k) * wide + c);
            }
            Tile<ROWS>::to_weights(u, g);
            for (int i = 0; i < 9; ++i) store<T>(d_weights + (k * 9 + i) * C + c, g[i], std::min<int64_t>(L, C - c));
        }
}

// f(Pair()) for maps of two rows, f(Four()) for others.
template <class F>
auto by_height(const ConvolutionShape& shape, F f) {
    return shape.height == Pair::OUT ? f(Pair()) : f(Four());
}

// Number of elements of transformed weights.
template <class T>
void transformed_size(const ConvolutionShape* shape, int32_t transposed, int64_t* size) {
    const int64_t from = transposed ? shape->out : shape->in, to = transposed ? shape->in : shape->out;
    *size = by_height(*shape, [](auto rows) { return Tile<decltype(rows)>::POINTS; }) * from * padded<T>(to);
}

template <class T>
void transform_weight(const ConvolutionShape* shape, const T* weights, int32_t transposed, T* panels) {
    by_height(*shape, [&](auto rows) { transform_weight_by<T, decltype(rows)>(*shape, weights, transposed, panels); });
}

template <class T>
void convolve(const ConvolutionShape* shape, const T* inputs, const T* panels, const T* bias, T* outputs) {
    by_height(*shape, [&](auto rows) { convolve_by<T, decltype(rows)>(*shape, inputs, panels, bias, outputs); });
}

template <class T>
void weight_gradient(const ConvolutionShape* shape, const T* inputs, const T* d_outputs, T* d_weights) {
    by_height(*shape, [&](auto rows) { weight_gradient_by<T, decltype(rows)>(*shape, inputs, d_outputs, d_weights); });
}

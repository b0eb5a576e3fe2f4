// Vectors of T as wide as the processor's registers, and the element-wise functions of gates.
//
// Written with the vector extension of GCC and Clang: one source for AVX-512, AVX2, SSE and NEON.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

// Bytes of a register, and the number of registers in which a product keeps sums; the others hold its operands.
#if defined(__AVX512F__)
constexpr int BYTES = 64, SUMS = 24;
#elif defined(__AVX2__)
constexpr int BYTES = 32, SUMS = 12;
#elif defined(__aarch64__)
constexpr int BYTES = 16, SUMS = 24;
#else
constexpr int BYTES = 16, SUMS = 12;
#endif

template <class T>
struct Format;

template <>
struct Format<float> {
    using Bits = int32_t;
    static constexpr int mantissa = 23, bias = 127, degree = 7;
    static constexpr float largest = 88.0f;            // e^x has a finite power of two up to here
    static constexpr float rounder = 12582912.0f;      // 1.5 · 2^23: adding it rounds to an integer in the low bits
    static constexpr float log2e = 1.44269504f, ln2 = 0.693145752f, ln2_rest = 1.42860677e-6f;
};

template <>
struct Format<double> {
    using Bits = int64_t;
    static constexpr int mantissa = 52, bias = 1023, degree = 13;
    static constexpr double largest = 708.0;
    static constexpr double rounder = 6755399441055744.0;  // 1.5 · 2^52
    static constexpr double log2e = 1.4426950408889634, ln2 = 6.93147180369123816490e-01,
                            ln2_rest = 1.90821492927058770002e-10;
};

template <class T>
struct Vector {
    typedef T type __attribute__((vector_size(BYTES)));
    typedef typename Format<T>::Bits bits __attribute__((vector_size(BYTES)));
};
template <class T>
using V = typename Vector<T>::type;
template <class T>
constexpr int LANES = BYTES / sizeof(T);

// The first `count` lanes; the others are 0 in `load` and left unchanged by `store`.
template <class T>
inline V<T> load(const T* from, int64_t count = LANES<T>) {
    V<T> v{};
    if (count == LANES<T>)
        std::memcpy(&v, from, sizeof v);
    else
        std::memcpy(&v, from, count * sizeof(T));
    return v;
}

template <class T>
inline void store(T* to, V<T> v, int64_t count = LANES<T>) {
    if (count == LANES<T>)
        std::memcpy(to, &v, sizeof v);
    else
        std::memcpy(to, &v, count * sizeof(T));
}

// e^x − 1 = 2^k (e^r − 1) + (2^k − 1), x = k ln 2 + r: exact near 0, where tanh needs it. NaN stays NaN.
template <class T>
inline V<T> expm1(V<T> x) {
    using F = Format<T>;
    using Bits = typename Vector<T>::bits;
    x = x < -F::largest ? V<T>{} - F::largest : x;
    x = x > F::largest ? V<T>{} + F::largest : x;
    const V<T> rounded = x * F::log2e + F::rounder;
    const V<T> k = rounded - F::rounder;
    const V<T> r = x - k * F::ln2 - k * F::ln2_rest;
    const Bits power = ((Bits)rounded - (Bits)(V<T>{} + F::rounder) + F::bias) << F::mantissa;
    constexpr T factorial[] = {1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800.0};
    V<T> sum = V<T>{} + 1 / factorial[F::degree];  // Taylor's: |r| < 0.35, so the first term left out is below rounding
    for (int n = F::degree - 1; n >= 1; --n) sum = sum * r + 1 / factorial[n];
    return (V<T>)power * (sum * r) + ((V<T>)power - 1);
}

template <class T>
inline V<T> sigmoid(V<T> x) {
    return 1 / (2 + expm1<T>(-x));
}

template <class T>
inline V<T> tanh(V<T> x) {
    const V<T> e = expm1<T>(2 * x);
    return e / (e + 2);
}

enum Join : int32_t { NONE = 0, ADD = 1, MUL = 2, UNIFORM = 3 };  // how a gate is refined; as in recurrence.py

template <class T>
inline V<T> join(int32_t kind, V<T> gate, V<T> feature) {
    return kind == MUL ? gate * feature : kind == ADD ? gate + feature : gate;
}

// From the gradient of a refined gate: returns the gradient of its pre-activation and adds the feature's to `d_feature`.
// `gate` is σ of the pre-activation.
template <class T>
inline V<T> gate_backward(int32_t join, V<T> gradient, V<T> gate, V<T> feature, V<T>& d_feature) {
    if (join != NONE) d_feature += join == MUL ? gradient * gate : gradient;
    if (join == MUL) gradient *= feature;
    return gradient * gate * (1 - gate);
}

// g = f + f (1 − f)(2 r − 1): the effective gate of gates f and r, both σ of their pre-activations (arXiv 1910.09890).
template <class T>
inline V<T> uniform_refine(V<T> f, V<T> r) {
    return f + f * (1 - f) * (2 * r - 1);
}

// From the gradient of g: returns the gradient of f's pre-activation and sets that of r's.
template <class T>
inline V<T> uniform_refine_backward(V<T> gradient, V<T> f, V<T> r, V<T>& d_refine) {
    const V<T> slope = f * (1 - f);
    d_refine = gradient * 2 * slope * r * (1 - r);
    return gradient * (1 + (1 - 2 * f) * (2 * r - 1)) * slope;
}

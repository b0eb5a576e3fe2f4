// The exported C interface: library_key and find_function.

#include <cstring>
#include <utility>

#include "convolution.h"
#include "recurrence.h"

namespace {

// `function` with a C interface: returns 0, or 1 if memory ran out, since exceptions must not leave the library.
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
        {"transformed_size", (void*)Exported<transformed_size<T>>::call},
        {"transform_weight", (void*)Exported<transform_weight<T>>::call},
        {"convolve", (void*)Exported<convolve<T>>::call},
        {"weight_gradient", (void*)Exported<weight_gradient<T>>::call},
    };
    for (const auto& [known, function] : functions)
        if (!std::strcmp(known, name)) return function;
    return nullptr;
}

}  // namespace

#define VISIBLE extern "C" __attribute__((visibility("default")))

// What the library was built from: `key` in library.py.
VISIBLE const char* library_key() { return LIBRARY_KEY; }

// Address of a function for elements of 4 or 8 bytes; null if there is none of that name.
VISIBLE void* find_function(const char* name, int bytes) { return bytes == 4 ? find<float>(name) : find<double>(name); }

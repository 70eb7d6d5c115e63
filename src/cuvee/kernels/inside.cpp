// What lies in a bracket: `native.py` compiles this, `select.inside` says what it does.

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "marks are counted from the lowest byte");

namespace {

constexpr int64_t BLOCK = 64;

template <class Value>
struct Search {
    const Value* values;
    Value low, high;
    Value* found;
    uint32_t* places;
    int64_t many = 0, below = 0;

    // Look at as many values as a processor's own way of picking numbers out of a vector takes. Returns how many.
    int64_t vectors(int64_t count);

    // Look at `size` values from `start` on: without a branch at each of them, so that it is done in vectors.
    void look(int64_t start, int64_t size) {
        uint8_t marks[BLOCK] = {};
        int32_t small = 0;
        for (int64_t i = 0; i < size; ++i) {
            const Value value = values[start + i];
            small += value <= high;
            marks[i] = (value <= high) & (value >= low);
        }
        below += small;
        for (int64_t first = 0; first < BLOCK; first += 8) {
            uint64_t bits;
            std::memcpy(&bits, marks + first, 8);
            for (; bits; bits &= bits - 1) {
                const int64_t place = start + first + (__builtin_ctzll(bits) >> 3);
                found[many] = values[place];
                places[many++] = static_cast<uint32_t>(place);
            }
        }
    }
};

#ifdef __AVX512F__
template <>
int64_t Search<float>::vectors(int64_t count) {
    constexpr int64_t LANES = 16;
    const __m512 least = _mm512_set1_ps(low), most = _mm512_set1_ps(high);
    const __m512i step = _mm512_set1_epi32(LANES);
    __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int64_t start = 0;
    for (; start + LANES <= count; start += LANES) {
        const __m512 value = _mm512_loadu_ps(values + start);
        const __mmask16 small = _mm512_cmp_ps_mask(value, most, _CMP_LE_OQ);
        const __mmask16 fits = _mm512_mask_cmp_ps_mask(small, value, least, _CMP_GE_OQ);
        _mm512_storeu_ps(found + many, _mm512_maskz_compress_ps(fits, value));  // whole: `many` is at most `start`
        _mm512_storeu_si512(places + many, _mm512_maskz_compress_epi32(fits, place));
        many += _mm_popcnt_u32(fits);
        below += _mm_popcnt_u32(small);
        place = _mm512_add_epi32(place, step);
    }
    return start;
}
#else
template <>
int64_t Search<float>::vectors(int64_t) {
    return 0;
}
#endif

template <>
int64_t Search<double>::vectors(int64_t) {
    return 0;
}

template <class Value>
int64_t inside(const Value* values, int64_t count, Value low, Value high, Value* found, uint32_t* places,
               int64_t* below) {
    Search<Value> search{values, low, high, found, places};
    int64_t start = search.vectors(count);
    for (; start + BLOCK <= count; start += BLOCK) search.look(start, BLOCK);
    search.look(start, count - start);
    *below = search.below;
    return search.many;
}

}  // namespace

extern "C" {

int64_t inside_float32(const float* values, int64_t count, float low, float high, float* found, uint32_t* places,
                       int64_t* below) {
    return inside(values, count, low, high, found, places, below);
}

int64_t inside_float64(const double* values, int64_t count, double low, double high, double* found, uint32_t* places,
                       int64_t* below) {
    return inside(values, count, low, high, found, places, below);
}
}

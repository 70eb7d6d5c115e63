// What lies in a bracket: `native.py` compiles this, `select.inside` says what it does.

#include <cstdint>
#include <cstring>

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

template <class Value>
int64_t inside(const Value* values, int64_t count, Value low, Value high, Value* found, uint32_t* places,
               int64_t* below) {
    Search<Value> search{values, low, high, found, places};
    const int64_t whole = count / BLOCK * BLOCK;
    for (int64_t start = 0; start < whole; start += BLOCK) search.look(start, BLOCK);
    search.look(whole, count - whole);
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

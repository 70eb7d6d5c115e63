// Ranks inside rows: `native.py` compiles this, `select.relative_rank` says what it is for. A row is packed into numbers
// that hold what is most of each value and its place; the caller sorts them; then the rest of the values is looked at.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

namespace {

int place_bits(int64_t count) {
    int bits = 1;
    while (count > int64_t{1} << bits) ++bits;
    return bits;
}

uint32_t key(float value) {  // of a value that is not negative: falls as it rises, in 31 bits
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return 0x7fffffffu - (bits & 0x7fffffffu);
}

// Numbers that say the same of their values are in the order of places: put them in the order of the whole values.
// Returns the first of those around the one at `at`, which is out of order, and what comes after the last.
std::pair<int64_t, int64_t> mend(uint32_t* sorted, int64_t count, int64_t at, const float* values, int bits) {
    const uint32_t mask = (uint32_t{1} << bits) - 1, same = sorted[at] >> bits;
    int64_t first = at, last = at + 1;
    while (first > 0 && sorted[first - 1] >> bits == same) --first;
    while (last < count && sorted[last] >> bits == same) ++last;
    std::stable_sort(sorted + first, sorted + last,
                     [=](uint32_t a, uint32_t b) { return key(values[a & mask]) < key(values[b & mask]); });
    return {first, last};
}

}  // namespace

extern "C" {

void pack_rows(const float* values, int64_t rows, int64_t count, uint32_t* packed) {
    const int bits = place_bits(count);
    for (int64_t row = 0; row < rows; ++row, values += count, packed += count)
        for (int64_t i = 0; i < count; ++i)
            packed[i] = key(values[i]) >> (bits - 1) << bits | static_cast<uint32_t>(i);
}

// marks: the last one is for the largest value of a row.
void mark_rows(const float* values, int64_t rows, int64_t count, uint32_t* sorted, const float* marks, float* out) {
    const int bits = place_bits(count);
    const uint32_t mask = (uint32_t{1} << bits) - 1;
    for (int64_t row = 0; row < rows; ++row, values += count, sorted += count, out += count) {
        const auto mark = [=](int64_t i) { out[sorted[i] & mask] = marks[count - 1 - i]; };
        uint32_t before = 0;
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t now = key(values[sorted[i] & mask]);
            if (now >= before) {
                mark(i);
                before = now;
                continue;
            }
            const auto [first, last] = mend(sorted, count, i, values, bits);
            for (int64_t again = first; again < last; ++again) mark(again);
            before = key(values[sorted[last - 1] & mask]);
            i = last - 1;
        }
    }
}
}

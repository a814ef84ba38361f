// Stands in for liblz4 where it is not installed: Verilator's waveform writer needs two of its
// functions.  Blocks come out valid but uncompressed (one run of literals, LZ4 block format).
#pragma once

#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char* source, char* target, int size, int capacity) {
    if (capacity < LZ4_compressBound(size)) return 0;
    char* out = target;
    if (size < 15) {
        *out++ = char(size << 4);
    } else {
        *out++ = char(0xF0);
        int rest = size - 15;
        for (; rest >= 255; rest -= 255) *out++ = char(0xFF);
        *out++ = char(rest);
    }
    std::memcpy(out, source, size_t(size));
    return int(out - target) + size;
}

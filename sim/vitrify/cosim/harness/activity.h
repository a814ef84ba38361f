// What the engines of a core do when, as spans of cycles in which nothing changes; off unless
// somebody watches.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace {

// One engine in one state; the order of the engines is that of ENGINES in vitrify.cosim.core.
struct Stretch {
    uint64_t begin;
    uint64_t end;
    uint32_t number;  // which MATMUL or instruction
    uint8_t engine;
    uint8_t state;  // never 0: an idle engine has no stretch
    uint8_t pad[2];
};

enum Engine { kInstructions, kLoader, kArray, kEpilogue, kRouter, kLoads, kStores, kBus, kEngines };

struct Activity {
    uint64_t bucket = 0;  // cycles of a sum of bytes; 0: nobody watches
    std::vector<Stretch> done;
    std::vector<uint32_t> bytes;     // read, by bucket
    std::vector<uint64_t> bounds;    // where the parts of the memory begin, ascending from 0 on
    std::vector<uint8_t> kinds;      // what they are

    // `engine` is in `state` (0: idle) in `cycle`.
    void see(Engine engine, uint8_t state, uint64_t cycle, uint32_t number) {
        Stretch& now = open[engine];
        if (now.state == state && now.end == cycle && now.number == number) {
            ++now.end;
            return;
        }
        if (now.state) done.push_back(now);
        now = {cycle, cycle + 1, number, uint8_t(engine), state, {}};
    }

    void read(uint64_t cycle, uint64_t address, uint32_t size) {
        const auto part = std::upper_bound(bounds.begin(), bounds.end(), address);
        see(kBus, kinds[part - bounds.begin() - 1], cycle, 0);
        bytes.resize(std::max<size_t>(bytes.size(), cycle / bucket + 1));
        bytes[cycle / bucket] += size;
    }

    // Ends every stretch.
    void close() {
        for (Stretch& now : open) {
            if (now.state) done.push_back(now);
            now = {};
        }
    }

   private:
    std::array<Stretch, kEngines> open{};
};

}  // namespace

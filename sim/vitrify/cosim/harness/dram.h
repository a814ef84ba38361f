// DRAM behind an AXI4 slave port, with latency, bandwidth and a limit of bursts in flight; it counts,
// names protocol errors, and has the misfortunes that tests order.
//
// Compile-time setting: VFY_BUS (bytes of a bus beat).
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <utility>

#include "Vcore.h"

namespace {

constexpr uint32_t kOkay = 0;
constexpr uint32_t kDecodeError = 3;
constexpr uint32_t kPage = 4096;  // AXI4: no burst crosses a 4 KiB boundary
constexpr uint32_t kUnit = 1 << 16;  // fixed point of bandwidth and stall probability

// Ports are plain integers up to 64 bits, arrays of 32-bit words beyond.
template <typename T>
void to_bytes(const T& port, uint8_t* out, size_t size) {
    static_assert(sizeof(T) > 0);
    std::memcpy(out, &port, size < sizeof(T) ? size : sizeof(T));
}

template <typename T>
void from_bytes(T& port, const uint8_t* in, size_t size) {
    std::memset(&port, 0, sizeof(T));
    std::memcpy(&port, in, size);
}

struct Burst {
    uint64_t address;
    uint32_t beats;  // still to come
    uint64_t ready;  // first cycle in which data may move
};

// Ways in which the core broke the bus protocol; zero when it did not.
enum Fault : uint32_t {
    kNone = 0,
    kReadOutside = 1,
    kWriteOutside = 2,
    kPageCrossed = 3,
    kBadLast = 4,
    kBadSize = 5,
};

// Misfortunes that a test orders.
enum Misfortune : uint32_t {
    kReadError = 1,   // beat number `after` is answered with `value`
    kWriteError = 2,  // response number `after` is `value`
    kStandstill = 3,  // after so many cycles the memory does nothing for `value` cycles
};

// Addresses that the core has asked for: first and last byte.
struct Extent {
    uint64_t first = ~uint64_t(0);
    uint64_t last = 0;

    void add(const Burst& burst) {
        const uint64_t end = burst.address + uint64_t(burst.beats) * VFY_BUS - 1;
        if (burst.address < first) first = burst.address;
        if (end > last) last = end;
    }
};

struct Dram {
    uint8_t* memory = nullptr;
    uint64_t size = 0;
    uint32_t latency = 0;
    uint32_t outstanding = 1;
    uint32_t rate = kUnit;   // beats a cycle
    uint32_t stall = 0;      // probability of a random stall
    std::minstd_rand random{1};

    std::deque<Burst> reads;
    std::deque<Burst> writes;
    std::deque<std::pair<uint64_t, uint32_t>> responses;  // cycle, code
    uint32_t read_credit = 0, write_credit = 0;
    bool read_failed = false, write_failed = false;
    uint64_t read_beats = 0, write_beats = 0;
    uint32_t fault = kNone;
    uint64_t fault_address = 0;

    uint32_t misfortune = 0, misfortune_value = 0;
    uint64_t misfortune_after = 0;
    bool happened = false;
    uint64_t stands_until = 0;
    Extent read_extent, write_extent;
    bool took_r = false, took_b = false;

    // Whether this is the event that the misfortune waits for.
    bool strikes(uint32_t kind) {
        if (misfortune != kind || misfortune_after-- != 0) return false;
        misfortune = 0;
        happened = true;
        return true;
    }

    bool stalled() { return stall != 0 && (random() & (kUnit - 1)) < stall; }

    void set_fault(uint32_t kind, uint64_t address) {
        if (fault == kNone) {
            fault = kind;
            fault_address = address;
        }
    }

    Burst accept(uint64_t address, uint32_t length, uint32_t width, uint64_t ready) {
        const uint32_t beats = length + 1;
        const uint64_t end = address + uint64_t(beats) * VFY_BUS - 1;
        if ((1u << width) != VFY_BUS) set_fault(kBadSize, address);
        if (address / kPage != end / kPage) set_fault(kPageCrossed, address);
        return {address, beats, ready};
    }

    bool inside(uint64_t address) const { return size >= VFY_BUS && address <= size - VFY_BUS; }

    // Before an edge: the handshakes of this cycle.
    void take(const Vcore& t, uint64_t cycle) {
        const bool ar = t.m_axi_arvalid && t.m_axi_arready;
        took_r = t.m_axi_rvalid && t.m_axi_rready;
        const bool aw = t.m_axi_awvalid && t.m_axi_awready;
        const bool w = t.m_axi_wvalid && t.m_axi_wready;
        took_b = t.m_axi_bvalid && t.m_axi_bready;
        if (took_r) {
            Burst& burst = reads.front();
            burst.address += VFY_BUS;
            read_credit -= kUnit;
            ++read_beats;
            if (--burst.beats == 0) reads.pop_front();
        }
        if (w) take_write(t, cycle);
        if (ar) {
            reads.push_back(
                accept(t.m_axi_araddr, t.m_axi_arlen, t.m_axi_arsize, cycle + latency));
            read_extent.add(reads.back());
        }
        if (aw) {
            writes.push_back(accept(t.m_axi_awaddr, t.m_axi_awlen, t.m_axi_awsize, cycle));
            write_extent.add(writes.back());
        }
        if (took_b) responses.pop_front();
    }

    // Reset with the core: bursts that begin before it has noticed are lost.
    void forget(Vcore& t) {
        t.m_axi_rvalid = t.m_axi_bvalid = 0;
        reads.clear();
        writes.clear();
        responses.clear();
    }

    // After an edge: what the DRAM offers in the coming cycle, from what happened until now.
    void offer(Vcore& t, uint64_t cycle) {
        if (took_r) t.m_axi_rvalid = 0;
        if (took_b) t.m_axi_bvalid = 0;
        took_r = took_b = false;
        if (strikes(kStandstill)) stands_until = cycle + misfortune_value;
        if (cycle < stands_until) {
            t.m_axi_arready = t.m_axi_awready = t.m_axi_wready = 0;
            return;
        }
        t.m_axi_arready = reads.size() < outstanding && !stalled();
        t.m_axi_awready = writes.size() < outstanding && !stalled();

        read_credit = read_credit > kUnit ? kUnit : read_credit;
        write_credit = write_credit > kUnit ? kUnit : write_credit;
        read_credit += rate;
        write_credit += rate;

        if (!t.m_axi_rvalid && !reads.empty() && cycle >= reads.front().ready &&
            read_credit >= kUnit && !stalled()) {
            const Burst& burst = reads.front();
            const bool good = inside(burst.address);
            uint8_t data[VFY_BUS] = {};
            if (good) {
                std::memcpy(data, memory + burst.address, VFY_BUS);
            } else {
                set_fault(kReadOutside, burst.address);
            }
            from_bytes(t.m_axi_rdata, data, VFY_BUS);
            t.m_axi_rresp = good ? kOkay : kDecodeError;
            if (strikes(kReadError)) t.m_axi_rresp = misfortune_value;
            t.m_axi_rlast = burst.beats == 1;
            t.m_axi_rid = 0;
            t.m_axi_rvalid = 1;
        }
        t.m_axi_wready = !writes.empty() && write_credit >= kUnit && !stalled();
        if (!t.m_axi_bvalid && !responses.empty() && cycle >= responses.front().first &&
            !stalled()) {
            t.m_axi_bresp = responses.front().second;
            t.m_axi_bid = 0;
            t.m_axi_bvalid = 1;
        }
    }

    void take_write(const Vcore& t, uint64_t cycle) {
        Burst& burst = writes.front();
        uint8_t data[VFY_BUS], strobe[(VFY_BUS + 7) / 8];
        to_bytes(t.m_axi_wdata, data, VFY_BUS);
        to_bytes(t.m_axi_wstrb, strobe, sizeof strobe);
        if (inside(burst.address)) {
            for (int i = 0; i < VFY_BUS; ++i) {
                if (strobe[i / 8] >> (i % 8) & 1) memory[burst.address + i] = data[i];
            }
        } else {
            write_failed = true;
            set_fault(kWriteOutside, burst.address);
        }
        burst.address += VFY_BUS;
        --burst.beats;
        write_credit -= kUnit;
        ++write_beats;
        if (bool(t.m_axi_wlast) != (burst.beats == 0)) set_fault(kBadLast, burst.address);
        if (burst.beats == 0) {
            uint32_t response = write_failed ? kDecodeError : kOkay;
            if (strikes(kWriteError)) response = misfortune_value;
            responses.emplace_back(cycle + latency, response);
            write_failed = false;
            writes.pop_front();
        }
    }
};

}  // namespace

// DRAM behind one or more AXI4 slave ports, with latency, bandwidth and a limit of bursts in flight;
// it counts, names protocol errors, and has the misfortunes that tests order.
//
// Ideal, every port moves data both ways at its own rate; with a controller (controller.h), all of
// them share a data bus.
//
// Compile-time settings: VFY_PORTS (1: m_axi_*, more: m_axi0_* ...), VFY_BUS (bytes of a port's beat).
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "Vcore.h"
#include "controller.h"

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

// The wires of one port.  Verilator's members are references of the right width already.
#if VFY_PORTS == 1
#define VFY_TYPE(name) decltype(Vcore::m_axi_##name)
#else
#define VFY_TYPE(name) decltype(Vcore::m_axi0_##name)
#endif
struct Pins {
    VFY_TYPE(arvalid) arvalid; VFY_TYPE(arready) arready; VFY_TYPE(araddr) araddr;
    VFY_TYPE(arlen) arlen; VFY_TYPE(arsize) arsize;
    VFY_TYPE(rvalid) rvalid; VFY_TYPE(rready) rready; VFY_TYPE(rdata) rdata;
    VFY_TYPE(rresp) rresp; VFY_TYPE(rlast) rlast; VFY_TYPE(rid) rid;
    VFY_TYPE(awvalid) awvalid; VFY_TYPE(awready) awready; VFY_TYPE(awaddr) awaddr;
    VFY_TYPE(awlen) awlen; VFY_TYPE(awsize) awsize;
    VFY_TYPE(wvalid) wvalid; VFY_TYPE(wready) wready; VFY_TYPE(wdata) wdata;
    VFY_TYPE(wstrb) wstrb; VFY_TYPE(wlast) wlast;
    VFY_TYPE(bvalid) bvalid; VFY_TYPE(bready) bready; VFY_TYPE(bresp) bresp; VFY_TYPE(bid) bid;
};
#define VFY_PINS(t, p)                                                                          \
    Pins {                                                                                      \
        t.p##_arvalid, t.p##_arready, t.p##_araddr, t.p##_arlen, t.p##_arsize, t.p##_rvalid,     \
            t.p##_rready, t.p##_rdata, t.p##_rresp, t.p##_rlast, t.p##_rid, t.p##_awvalid,       \
            t.p##_awready, t.p##_awaddr, t.p##_awlen, t.p##_awsize, t.p##_wvalid, t.p##_wready,  \
            t.p##_wdata, t.p##_wstrb, t.p##_wlast, t.p##_bvalid, t.p##_bready, t.p##_bresp,      \
            t.p##_bid                                                                           \
    }

struct Burst {
    uint64_t address;
    uint32_t beats;    // still to come
    uint64_t ready;    // first cycle in which data may move; fixed point behind a controller
    uint64_t arrival;  // cycle
    uint64_t first;    // address of its first beat
    bool scheduled;
};

// A write whose data are all there, and the response to it.
struct Stored {
    uint64_t address;
    uint32_t bytes;
    uint64_t arrival;
    uint32_t response;
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

struct Port {
    Pins pins;
    std::deque<Burst> reads;
    std::deque<Burst> writes;
    std::deque<Stored> stored;
    std::deque<std::pair<uint64_t, uint32_t>> responses;  // cycle, code
    uint32_t read_credit = 0, write_credit = 0;
    bool write_failed = false, took_r = false, took_b = false;

    explicit Port(const Pins& wires) : pins(wires) {}

    // Reset with the core: bursts that begin before it has noticed are lost.
    void forget() {
        pins.rvalid = pins.bvalid = 0;
        reads.clear();
        writes.clear();
        stored.clear();
        responses.clear();
    }
};

struct Dram {
    std::vector<Port> ports;
    uint8_t* memory = nullptr;
    uint64_t size = 0;
    uint32_t latency = 0;
    uint32_t outstanding = 1;
    uint32_t rate = kUnit;   // beats a cycle and port
    uint32_t stall = 0;      // probability of a random stall
    std::minstd_rand random{1};
    Controller controller;
    size_t turn = 0;  // port that the controller serves first

    uint64_t read_beats = 0, write_beats = 0;  // of a port
    uint64_t read_address = 0;                 // of the latest beat
    uint32_t fault = kNone;
    uint64_t fault_address = 0;

    uint32_t misfortune = 0, misfortune_value = 0;
    uint64_t misfortune_after = 0;
    bool happened = false;
    uint64_t stands_until = 0;
    Extent read_extent, write_extent;

    explicit Dram(Vcore& t) {
#if VFY_PORTS == 1
        ports.emplace_back(VFY_PINS(t, m_axi));
#else
        ports.emplace_back(VFY_PINS(t, m_axi0));
        ports.emplace_back(VFY_PINS(t, m_axi1));
#endif
#if VFY_PORTS >= 4
        ports.emplace_back(VFY_PINS(t, m_axi2));
        ports.emplace_back(VFY_PINS(t, m_axi3));
#endif
#if VFY_PORTS == 8
        ports.emplace_back(VFY_PINS(t, m_axi4));
        ports.emplace_back(VFY_PINS(t, m_axi5));
        ports.emplace_back(VFY_PINS(t, m_axi6));
        ports.emplace_back(VFY_PINS(t, m_axi7));
#endif
    }

    bool shared() const { return controller.byte != 0; }

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

    Burst accept(uint64_t address, uint32_t length, uint32_t width, uint64_t ready, uint64_t cycle) {
        const uint32_t beats = length + 1;
        const uint64_t end = address + uint64_t(beats) * VFY_BUS - 1;
        if ((1u << width) != VFY_BUS) set_fault(kBadSize, address);
        if (address / kPage != end / kPage) set_fault(kPageCrossed, address);
        return {address, beats, ready, cycle, address, false};
    }

    bool inside(uint64_t address) const { return size >= VFY_BUS && address <= size - VFY_BUS; }

    // Before an edge: the handshakes of this cycle.
    void take(uint64_t cycle) {
        for (Port& port : ports) take(port, cycle);
    }

    void take(Port& port, uint64_t cycle) {
        const Pins& t = port.pins;
        const bool ar = t.arvalid && t.arready;
        port.took_r = t.rvalid && t.rready;
        const bool aw = t.awvalid && t.awready;
        const bool w = t.wvalid && t.wready;
        port.took_b = t.bvalid && t.bready;
        if (port.took_r) {
            Burst& burst = port.reads.front();
            read_address = burst.address;
            burst.address += VFY_BUS;
            burst.ready += uint64_t(VFY_BUS) * controller.byte;
            port.read_credit -= kUnit;
            ++read_beats;
            if (--burst.beats == 0) port.reads.pop_front();
        }
        if (w) take_write(port, cycle);
        if (ar) {
            port.reads.push_back(accept(t.araddr, t.arlen, t.arsize, cycle + latency, cycle));
            read_extent.add(port.reads.back());
        }
        if (aw) {
            port.writes.push_back(accept(t.awaddr, t.awlen, t.awsize, cycle, cycle));
            write_extent.add(port.writes.back());
        }
        if (port.took_b) port.responses.pop_front();
    }

    void forget() {
        for (Port& port : ports) port.forget();
        controller.forget();
    }

    // Give the data bus to bursts until it is taken for the coming cycle.
    void schedule(uint64_t cycle) {
        while (controller.free < (cycle + 1) * kUnit) {
            Port* reader = nullptr;
            Burst* read = nullptr;
            Port* writer = nullptr;
            for (size_t i = 0; i < ports.size(); ++i) {
                Port& port = ports[(turn + i) % ports.size()];
                if (!writer && !port.stored.empty()) writer = &port;
                if (reader) continue;
                for (Burst& burst : port.reads) {
                    if (burst.scheduled) continue;
                    reader = &port;
                    read = &burst;
                    break;
                }
            }
            if (!reader && !writer) return;
            const bool write = controller.writing ? controller.stays(writer, reader)
                                                  : !controller.stays(reader, writer);
            if (write) {
                const Stored done = writer->stored.front();
                writer->stored.pop_front();
                controller.serve(done.address, done.bytes, true, done.arrival * kUnit);
                writer->responses.emplace_back(controller.free / kUnit + latency, done.response);
            } else {
                const uint64_t start = controller.serve(
                    read->address, read->beats * VFY_BUS, false, read->arrival * kUnit);
                read->ready = start + uint64_t(latency) * kUnit;
                read->scheduled = true;
            }
            turn = ((write ? writer : reader) - ports.data() + 1) % ports.size();
        }
    }

    // After an edge: what the DRAM offers in the coming cycle, from what happened until now.
    void offer(uint64_t cycle) {
        for (Port& port : ports) {
            if (port.took_r) port.pins.rvalid = 0;
            if (port.took_b) port.pins.bvalid = 0;
            port.took_r = port.took_b = false;
        }
        if (strikes(kStandstill)) stands_until = cycle + misfortune_value;
        if (cycle < stands_until) {
            for (Port& port : ports) port.pins.arready = port.pins.awready = port.pins.wready = 0;
            return;
        }
        if (shared()) schedule(cycle);
        for (Port& port : ports) offer(port, cycle);
    }

    // Whether the next beat of a read may come.
    bool due(const Burst& burst, uint64_t cycle) const {
        return shared() ? burst.scheduled && cycle * kUnit >= burst.ready : cycle >= burst.ready;
    }

    void offer(Port& port, uint64_t cycle) {
        Pins& t = port.pins;
        t.arready = port.reads.size() < outstanding && !stalled();
        t.awready = port.writes.size() + port.stored.size() < outstanding && !stalled();

        port.read_credit = port.read_credit > kUnit ? kUnit : port.read_credit;
        port.write_credit = port.write_credit > kUnit ? kUnit : port.write_credit;
        port.read_credit += rate;
        port.write_credit += rate;

        if (!t.rvalid && !port.reads.empty() && due(port.reads.front(), cycle) &&
            port.read_credit >= kUnit && !stalled()) {
            const Burst& burst = port.reads.front();
            const bool good = inside(burst.address);
            uint8_t data[VFY_BUS] = {};
            if (good) {
                std::memcpy(data, memory + burst.address, VFY_BUS);
            } else {
                set_fault(kReadOutside, burst.address);
            }
            from_bytes(t.rdata, data, VFY_BUS);
            t.rresp = good ? kOkay : kDecodeError;
            if (strikes(kReadError)) t.rresp = misfortune_value;
            t.rlast = burst.beats == 1;
            t.rid = 0;
            t.rvalid = 1;
        }
        t.wready = !port.writes.empty() && port.write_credit >= kUnit && !stalled();
        if (!t.bvalid && !port.responses.empty() && cycle >= port.responses.front().first &&
            !stalled()) {
            t.bresp = port.responses.front().second;
            t.bid = 0;
            t.bvalid = 1;
        }
    }

    void take_write(Port& port, uint64_t cycle) {
        const Pins& t = port.pins;
        Burst& burst = port.writes.front();
        uint8_t data[VFY_BUS], strobe[(VFY_BUS + 7) / 8];
        to_bytes(t.wdata, data, VFY_BUS);
        to_bytes(t.wstrb, strobe, sizeof strobe);
        if (inside(burst.address)) {
            for (int i = 0; i < VFY_BUS; ++i) {
                if (strobe[i / 8] >> (i % 8) & 1) memory[burst.address + i] = data[i];
            }
        } else {
            port.write_failed = true;
            set_fault(kWriteOutside, burst.address);
        }
        burst.address += VFY_BUS;
        --burst.beats;
        port.write_credit -= kUnit;
        ++write_beats;
        if (bool(t.wlast) != (burst.beats == 0)) set_fault(kBadLast, burst.address);
        if (burst.beats != 0) return;
        uint32_t response = port.write_failed ? kDecodeError : kOkay;
        if (strikes(kWriteError)) response = misfortune_value;
        if (shared()) {
            const uint32_t bytes = uint32_t(burst.address - burst.first);
            port.stored.push_back({burst.first, bytes, cycle, response});
        } else {
            port.responses.emplace_back(cycle + latency, response);
        }
        port.write_failed = false;
        port.writes.pop_front();
    }
};

}  // namespace

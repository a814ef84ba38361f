// The world around a verilated core: clock, AXI4-Lite master for its registers, DRAM behind its
// AXI4 master, and a recorder of what its epilogue writes.  Driven through a C interface from
// Python (vitrify.cosim.core).
//
// Compile-time settings: VFY_DEPTH (bytes of a token-memory word), VFY_BUS (bytes of a bus beat),
// VFY_TAP (1: the core has trace outputs), VFY_FST (1: waveforms).

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "Vcore.h"
#include "verilated.h"
#if VFY_FST
#include "verilated_fst_c.h"
#endif

namespace {

constexpr uint32_t kOkay = 0;
constexpr uint32_t kDecodeError = 3;
constexpr uint32_t kPage = 4096;  // AXI4: no burst crosses a 4 KiB boundary
constexpr uint32_t kUnit = 1 << 16;  // fixed point of bandwidth and stall probability
constexpr int kMaskBytes = 16;

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

// One write of the epilogue into the token memory.
struct Record {
    uint64_t cycle;
    uint32_t matmul;
    uint32_t address;
    uint8_t wide;
    uint8_t pad[7];
    uint8_t mask[kMaskBytes];
    uint8_t low[VFY_DEPTH];
    uint8_t high[VFY_DEPTH];
};

struct Span {
    uint64_t first;
    uint64_t last;
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

struct Core {
    std::unique_ptr<VerilatedContext> context = std::make_unique<VerilatedContext>();
    std::unique_ptr<Vcore> top;
#if VFY_FST
    std::unique_ptr<VerilatedFstC> fst;
#endif
    uint64_t cycle = 0;

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

    bool record = false;
    std::vector<Record> records;
    std::vector<Span> spans;
    uint8_t sequence = 0;
    uint64_t taps = 0;

    Core() : top(std::make_unique<Vcore>(context.get(), "core")) {}

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

    void trace() {
#if VFY_TAP
        if (!top->trace_valid) return;
        const uint8_t now = uint8_t(top->trace_seq);
        if (spans.empty()) {
            spans.push_back({cycle, cycle});
        } else if (now != sequence) {
            // Instructions finish in order; one without a write leaves an empty span.
            const uint8_t steps = uint8_t(now - sequence);
            for (uint8_t i = 0; i < steps; ++i) spans.push_back({cycle, cycle});
        }
        sequence = now;
        ++taps;
        spans.back().last = cycle;
        if (!record) return;
        Record entry{};
        entry.cycle = cycle;
        entry.matmul = uint32_t(spans.size() - 1);
        entry.address = uint32_t(top->trace_addr);
        entry.wide = uint8_t(top->trace_wide);
        to_bytes(top->trace_mask, entry.mask, kMaskBytes);
        to_bytes(top->trace_lo, entry.low, VFY_DEPTH);
        to_bytes(top->trace_hi, entry.high, VFY_DEPTH);
        records.push_back(entry);
#endif
    }

    // What the DRAM offers in the coming cycle, from what happened until now.
    void drive() {
        Vcore& t = *top;
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

    void take_write() {
        Vcore& t = *top;
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

    // One clock cycle.  Handshakes are read before the edge, answers appear after it.
    void tick() {
        Vcore& t = *top;
        t.clk = 0;
        t.eval();
        trace();
#if VFY_FST
        if (fst) fst->dump(2 * cycle);
#endif
        const bool ar = t.m_axi_arvalid && t.m_axi_arready;
        const bool r = t.m_axi_rvalid && t.m_axi_rready;
        const bool aw = t.m_axi_awvalid && t.m_axi_awready;
        const bool w = t.m_axi_wvalid && t.m_axi_wready;
        const bool b = t.m_axi_bvalid && t.m_axi_bready;
        if (r) {
            Burst& burst = reads.front();
            burst.address += VFY_BUS;
            read_credit -= kUnit;
            ++read_beats;
            if (--burst.beats == 0) reads.pop_front();
        }
        if (w) take_write();
        if (ar) {
            reads.push_back(
                accept(t.m_axi_araddr, t.m_axi_arlen, t.m_axi_arsize, cycle + latency));
            read_extent.add(reads.back());
        }
        if (aw) {
            writes.push_back(accept(t.m_axi_awaddr, t.m_axi_awlen, t.m_axi_awsize, cycle));
            write_extent.add(writes.back());
        }
        if (b) responses.pop_front();
        t.clk = 1;
        t.eval();
#if VFY_FST
        if (fst) fst->dump(2 * cycle + 1);
#endif
        ++cycle;
        if (r) t.m_axi_rvalid = 0;
        if (b) t.m_axi_bvalid = 0;
        drive();
    }

    // The memory is in reset with the core: bursts that begin before the core has noticed are lost.
    void forget() {
        top->m_axi_rvalid = top->m_axi_bvalid = 0;
        reads.clear();
        writes.clear();
        responses.clear();
    }

    void reset(uint32_t cycles) {
        Vcore& t = *top;
        t.s_axi_awvalid = t.s_axi_wvalid = t.s_axi_bready = 0;
        t.s_axi_arvalid = t.s_axi_rready = 0;
        forget();
        t.rst = 1;
        for (uint32_t i = 0; i < cycles; ++i) {
            tick();
            forget();
        }
        t.rst = 0;
    }

    // Both return whether the core answered with OKAY within `limit` cycles.
    bool csr_write(uint32_t address, uint32_t value, uint32_t limit) {
        Vcore& t = *top;
        t.s_axi_awaddr = address;
        t.s_axi_wdata = value;
        t.s_axi_wstrb = 0xF;
        t.s_axi_awvalid = t.s_axi_wvalid = t.s_axi_bready = 1;
        for (uint32_t i = 0; i < limit; ++i) {
            t.clk = 0;
            t.eval();
            const bool aw = t.s_axi_awvalid && t.s_axi_awready;
            const bool w = t.s_axi_wvalid && t.s_axi_wready;
            const bool b = t.s_axi_bvalid && t.s_axi_bready;
            const uint32_t response = t.s_axi_bresp;
            tick();
            if (aw) t.s_axi_awvalid = 0;
            if (w) t.s_axi_wvalid = 0;
            if (b) {
                t.s_axi_bready = 0;
                return response == kOkay;
            }
        }
        return false;
    }

    bool csr_read(uint32_t address, uint32_t* value, uint32_t limit) {
        Vcore& t = *top;
        t.s_axi_araddr = address;
        t.s_axi_arvalid = t.s_axi_rready = 1;
        for (uint32_t i = 0; i < limit; ++i) {
            t.clk = 0;
            t.eval();
            const bool ar = t.s_axi_arvalid && t.s_axi_arready;
            const bool r = t.s_axi_rvalid && t.s_axi_rready;
            const uint32_t response = t.s_axi_rresp;
            *value = t.s_axi_rdata;
            tick();
            if (ar) t.s_axi_arvalid = 0;
            if (r) {
                t.s_axi_rready = 0;
                return response == kOkay;
            }
        }
        return false;
    }
};

}  // namespace

extern "C" {

Core* vfy_create() { return new Core; }

void vfy_destroy(Core* core) {
#if VFY_FST
    if (core->fst) core->fst->close();
#endif
    core->top->final();
    delete core;
}

// Returns 1 when a waveform is being written.
int vfy_open_trace(Core* core, const char* path) {
#if VFY_FST
    core->context->traceEverOn(true);
    core->fst = std::make_unique<VerilatedFstC>();
    core->top->trace(core->fst.get(), 99);
    core->fst->open(path);
    return core->fst->isOpen();
#else
    (void)core;
    (void)path;
    return 0;
#endif
}

void vfy_memory(Core* core, uint8_t* memory, uint64_t size) {
    core->memory = memory;
    core->size = size;
}

void vfy_dram(Core* core, uint32_t latency, uint32_t outstanding, uint32_t rate, uint32_t stall,
              uint32_t seed) {
    core->latency = latency;
    core->outstanding = outstanding;
    core->rate = rate;
    core->stall = stall;
    core->random.seed(seed);
}

void vfy_reset(Core* core, uint32_t cycles) { core->reset(cycles); }

int vfy_csr_write(Core* core, uint32_t address, uint32_t value, uint32_t limit) {
    return core->csr_write(address, value, limit);
}

int vfy_csr_read(Core* core, uint32_t address, uint32_t* value, uint32_t limit) {
    return core->csr_read(address, value, limit);
}

// Clock until the interrupt line is high or `cycles` have passed; returns the line.
int vfy_run(Core* core, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles && !core->top->irq; ++i) core->tick();
    return core->top->irq;
}

// cycle, read beats, write beats, MATMULs seen, records held, fault, fault address, tapped writes
void vfy_state(const Core* core, uint64_t* out) {
    out[0] = core->cycle;
    out[1] = core->read_beats;
    out[2] = core->write_beats;
    out[3] = core->spans.size();
    out[4] = core->records.size();
    out[5] = core->fault;
    out[6] = core->fault_address;
    out[7] = core->taps;
}

// Orders a misfortune (0: none) and forgets whether the last one happened.
void vfy_misfortune(Core* core, uint32_t kind, uint64_t after, uint32_t value) {
    core->misfortune = kind;
    core->misfortune_after = after;
    core->misfortune_value = value;
    core->happened = false;
    core->stands_until = 0;
}

int vfy_happened(const Core* core) { return core->happened; }

// First and last byte read, first and last byte written, since the last call.
void vfy_extent(Core* core, uint64_t* out) {
    out[0] = core->read_extent.first;
    out[1] = core->read_extent.last;
    out[2] = core->write_extent.first;
    out[3] = core->write_extent.last;
    core->read_extent = core->write_extent = Extent();
}

void vfy_record(Core* core, int on) { core->record = on; }

uint64_t vfy_record_bytes() { return sizeof(Record); }

// Copies all records and forgets them.
void vfy_take_records(Core* core, void* out) {
    std::memcpy(out, core->records.data(), core->records.size() * sizeof(Record));
    core->records.clear();
}

// Copies first and last write cycle of every MATMUL since the start.
void vfy_spans(const Core* core, uint64_t* out) {
    std::memcpy(out, core->spans.data(), core->spans.size() * sizeof(Span));
}
}

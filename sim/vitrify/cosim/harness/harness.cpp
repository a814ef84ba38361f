// The world around a verilated core: clock, AXI4-Lite master for its registers, DRAM behind its
// AXI4 master, and a recorder of what its epilogue writes.  Driven through a C interface from
// Python (vitrify.cosim.core).
//
// Compile-time settings: VFY_DEPTH (bytes of a token-memory word), VFY_PORTS, VFY_BUS
// (see dram.h), VFY_TAP (1: the core has trace outputs), VFY_FST (1: waveforms).

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "Vcore.h"
#include "activity.h"
#include "dram.h"
#include "verilated.h"
#if VFY_FST
#include "verilated_fst_c.h"
#endif

namespace {

constexpr int kMaskBytes = 16;

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

struct Core {
    std::unique_ptr<VerilatedContext> context = std::make_unique<VerilatedContext>();
    std::unique_ptr<Vcore> top;
#if VFY_FST
    std::unique_ptr<VerilatedFstC> fst;
#endif
    // The waveform has the cycles from `trace_from` to `trace_until` in which MATMUL number
    // `trace_first` or the one before it has begun, and `trace_last` has not been followed.
    uint64_t trace_from = 0, trace_until = ~uint64_t(0);
    uint32_t trace_first = 0, trace_last = ~uint32_t(0);
    uint64_t cycle = 0;

    Dram dram;

    bool record = false;
    std::vector<Record> records;
    std::vector<Span> spans;
    uint8_t sequence = 0;
    uint64_t taps = 0;

    Activity activity;
    uint8_t row_sequence = 0;
    uint32_t row_matmul = 0, instruction = 0;

    Core() : top(std::make_unique<Vcore>(context.get(), "core")), dram(*top) {}

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

    // The trace outputs show the cycle before; `reads`, `writes`: beats before this one.
    void watch(uint64_t reads, uint64_t writes) {
#if VFY_TAP
        row_matmul += uint8_t(uint8_t(top->trace_row_seq) - row_sequence);
        row_sequence = uint8_t(top->trace_row_seq);
        if (!activity.bucket) return;
        const auto counts = [&](int counter) { return top->trace_events >> counter & 1; };
        const uint64_t before = cycle - 1;
        uint8_t array = 0;
        for (int counter = VFY_ARRAY_BUSY; counter <= VFY_STALL_EMPTY; ++counter) {
            if (counts(counter)) array = uint8_t(counter - VFY_ARRAY_BUSY + 1);
        }
        const bool busy = counts(VFY_LOADER_BUSY), starved = counts(VFY_LOADER_STARVED);
        const bool issued = counts(VFY_INSTRUCTIONS);
        activity.see(kArray, array, before, row_matmul);
        activity.see(kLoader, busy ? 1 : 2 * starved, before, 0);
        activity.see(kInstructions, issued, before, instruction);
        instruction += issued;
        activity.see(kEpilogue, top->trace_valid, before, uint32_t(spans.size() - 1));
        activity.see(kRouter, top->trace_router, before, 0);
        activity.see(kLoads, top->trace_mover_valid, before, 0);
        activity.see(kStores, dram.write_beats != writes, cycle, 0);
        if (dram.read_beats != reads) {
            activity.read(cycle, dram.read_address, uint32_t(dram.read_beats - reads) * VFY_BUS);
        }
#endif
        (void)reads;
        (void)writes;
    }

#if VFY_FST
    void dump(uint64_t time) {
        if (!fst || cycle < trace_from || cycle >= trace_until) return;
        if (row_matmul + 1 < trace_first || spans.size() > size_t(trace_last) + 1) return;
        fst->dump(time);
    }
#endif

    // One clock cycle.  Handshakes are read before the edge, answers appear after it.
    void tick() {
        Vcore& t = *top;
        t.clk = 0;
        t.eval();
        trace();
#if VFY_FST
        dump(2 * cycle);
#endif
        const uint64_t reads = dram.read_beats, writes = dram.write_beats;
        dram.take(cycle);
        watch(reads, writes);
        t.clk = 1;
        t.eval();
#if VFY_FST
        dump(2 * cycle + 1);
#endif
        ++cycle;
        dram.offer(cycle);
    }

    void reset(uint32_t cycles) {
        Vcore& t = *top;
        t.s_axi_awvalid = t.s_axi_wvalid = t.s_axi_bready = 0;
        t.s_axi_arvalid = t.s_axi_rready = 0;
        dram.forget();
        t.rst = 1;
        for (uint32_t i = 0; i < cycles; ++i) {
            tick();
            dram.forget();
        }
        t.rst = 0;
#if VFY_TAP
        row_sequence = uint8_t(t.trace_row_seq);
        row_matmul = 0;
#endif
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

// Returns 1 when a waveform is being written, of `depth` levels of the hierarchy.
int vfy_open_trace(Core* core, const char* path, uint32_t depth, uint64_t from, uint64_t until,
                   uint32_t first, uint32_t last) {
#if VFY_FST
    core->trace_from = from;
    core->trace_until = until;
    core->trace_first = first;
    core->trace_last = last;
    core->context->traceEverOn(true);
    core->fst = std::make_unique<VerilatedFstC>();
    // A signal of the core itself is two levels below the root: the wrapper's are one.
    core->fst->dumpvars(int(depth) + 1, core->top->hierName());
    core->top->trace(core->fst.get(), 0);
    core->fst->open(path);
    return core->fst->isOpen();
#else
    (void)core;
    (void)path;
    (void)depth;
    (void)from;
    (void)until;
    (void)first;
    (void)last;
    return 0;
#endif
}

void vfy_memory(Core* core, uint8_t* memory, uint64_t size) {
    core->dram.memory = memory;
    core->dram.size = size;
}

// `controller`: the members of DramCycles (vitrify.arch.dram) in their order.
void vfy_dram(Core* core, uint32_t latency, uint32_t outstanding, uint32_t rate, uint32_t stall,
              uint32_t seed, const uint32_t* controller) {
    core->dram.latency = latency;
    core->dram.outstanding = outstanding;
    core->dram.rate = rate;
    core->dram.stall = stall;
    core->dram.random.seed(seed);
    Controller& shared = core->dram.controller;
    shared.byte = controller[0];
    shared.refresh_interval = controller[1];
    shared.refresh = controller[2];
    shared.turnaround = controller[3];
    shared.row_miss = controller[4];
    shared.row_bytes = controller[5];
    shared.banks = controller[6];
    shared.turn_bursts = controller[7];
    shared.forget();
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
    out[1] = core->dram.read_beats;
    out[2] = core->dram.write_beats;
    out[3] = core->spans.size();
    out[4] = core->records.size();
    out[5] = core->dram.fault;
    out[6] = core->dram.fault_address;
    out[7] = core->taps;
}

// Orders a misfortune (0: none) and forgets whether the last one happened.
void vfy_misfortune(Core* core, uint32_t kind, uint64_t after, uint32_t value) {
    core->dram.misfortune = kind;
    core->dram.misfortune_after = after;
    core->dram.misfortune_value = value;
    core->dram.happened = false;
    core->dram.stands_until = 0;
}

int vfy_happened(const Core* core) { return core->dram.happened; }

// First and last byte read, first and last byte written, since the last call.
void vfy_extent(Core* core, uint64_t* out) {
    out[0] = core->dram.read_extent.first;
    out[1] = core->dram.read_extent.last;
    out[2] = core->dram.write_extent.first;
    out[3] = core->dram.write_extent.last;
    core->dram.read_extent = core->dram.write_extent = Extent();
}

// Keep what the engines do, and the bytes read in every `bucket` cycles; `bounds`: first byte of
// `count` parts of the memory, and their kinds.
void vfy_watch(
    Core* core, const uint64_t* bounds, const uint8_t* kinds, uint32_t count, uint32_t bucket
) {
    core->activity.bucket = bucket;
    core->activity.bounds.assign(bounds, bounds + count);
    core->activity.kinds.assign(kinds, kinds + count);
}

// Ends the stretches; how many there are, and how many buckets of bytes.
void vfy_watched(Core* core, uint64_t* out) {
    core->activity.close();
    out[0] = core->activity.done.size();
    out[1] = core->activity.bytes.size();
}

void vfy_take_watched(const Core* core, void* stretches, uint32_t* bytes) {
    const Activity& seen = core->activity;
    std::memcpy(stretches, seen.done.data(), seen.done.size() * sizeof(Stretch));
    std::memcpy(bytes, seen.bytes.data(), seen.bytes.size() * sizeof(uint32_t));
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

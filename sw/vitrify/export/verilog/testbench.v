// Runs an exported program on the core @MODEL_ARCH@ and compares the results with golden's.
// Written by `vitrify export`; needs the core of `vitrify emit` and the .mem files in the working
// directory:
//
//   $ iverilog -g2012 -DVITRIFY_SIMULATION -o run testbench.v @MODULE@.v && vvp run
//   $ verilator --binary --timing -Wno-fatal --top-module testbench testbench.v @MODULE@.v
//   $ obj_dir/Vtestbench
//
// It ends with a line "PASS ..." or "FAIL ...", the latter also by $fatal.  +trace writes a
// waveform, testbench.vcd (Verilator: with --trace).
`timescale 1ns / 1ps

module testbench;
@PARAMETERS@

@REGISTERS@

    // Cycles without a beat of the memory after which the core is given up.
    localparam QUIET = @QUIET@;
    // Cycles for which an access to a register waits for its answer.
    localparam REGISTER_CYCLES = 1000;

    reg clk = 1'b0;
    reg rst = 1'b1;
    wire irq;

    always #5 clk = ~clk;

    // The memory, and its AXI4 ports side by side: port p has bits p*W +: W of each signal.
    reg [8*BYTES-1:0] memory [0:WORDS-1];
    reg [8*BYTES-1:0] expected [0:JOBS*OUTPUT_STEP/BYTES-1];
    // Ones where the outputs have results; what fills up their words is anything.
    reg [8*BYTES-1:0] mask [0:JOBS*OUTPUT_STEP/BYTES-1];

    wire [PORTS-1:0] arvalid, rready, awvalid, wvalid, wlast, bready;
    wire [PORTS-1:0] arready, awready, wready;
    reg [PORTS-1:0] rvalid = 0, rlast = 0, bvalid = 0;
    wire [PORTS*ADDRESS_BITS-1:0] araddr, awaddr;
    wire [PORTS*8-1:0] arlen, awlen;
    wire [PORTS*8*BYTES-1:0] wdata;
    wire [PORTS*BYTES-1:0] wstrb;
    reg [PORTS*8*BYTES-1:0] rdata = 0;
    reg [PORTS*2-1:0] rresp = 0, bresp = 0;

    // The registers' AXI4-Lite port.
    reg s_axi_awvalid = 1'b0, s_axi_wvalid = 1'b0, s_axi_bready = 1'b0;
    reg s_axi_arvalid = 1'b0, s_axi_rready = 1'b0;
    reg [11:0] s_axi_awaddr = 12'h0, s_axi_araddr = 12'h0;
    reg [31:0] s_axi_wdata = 32'h0;
    wire s_axi_awready, s_axi_wready, s_axi_bvalid, s_axi_arready, s_axi_rvalid;
    wire [31:0] s_axi_rdata;
    wire [1:0] s_axi_bresp, s_axi_rresp;

    @MODULE@ core (
        .clk(clk), .rst(rst), .irq(irq),
        .s_axi_awvalid(s_axi_awvalid), .s_axi_awready(s_axi_awready),
        .s_axi_awaddr(s_axi_awaddr), .s_axi_awprot(3'b000),
        .s_axi_wvalid(s_axi_wvalid), .s_axi_wready(s_axi_wready),
        .s_axi_wdata(s_axi_wdata), .s_axi_wstrb(4'b1111),
        .s_axi_bvalid(s_axi_bvalid), .s_axi_bready(s_axi_bready), .s_axi_bresp(s_axi_bresp),
        .s_axi_arvalid(s_axi_arvalid), .s_axi_arready(s_axi_arready),
        .s_axi_araddr(s_axi_araddr), .s_axi_arprot(3'b000),
        .s_axi_rvalid(s_axi_rvalid), .s_axi_rready(s_axi_rready),
        .s_axi_rdata(s_axi_rdata), .s_axi_rresp(s_axi_rresp),
@PORTS@
    );

    // Memory ----------------------------------------------------------------------------------
    // Each port serves one read and one write at a time, a beat a cycle; what lies outside the
    // memory is answered with DECERR.
    reg [PORTS-1:0] reading = 0, writing = 0, failed = 0;
    reg [ADDRESS_BITS-1:0] read_word [0:PORTS-1];
    reg [ADDRESS_BITS-1:0] write_word [0:PORTS-1];
    reg [8:0] read_left [0:PORTS-1];
    reg [8*BYTES-1:0] merged;
    reg [31:0] quiet = 0;
    integer p, i;

    assign arready = ~reading & {PORTS{~rst}};
    assign awready = ~writing & ~bvalid & {PORTS{~rst}};
    assign wready = writing;

    always @(posedge clk) begin
        quiet <= quiet + 1;
        for (p = 0; p < PORTS; p = p + 1) begin
            if (arvalid[p] && arready[p]) begin
                reading[p] <= 1'b1;
                read_word[p] <= araddr[p*ADDRESS_BITS +: ADDRESS_BITS] / BYTES;
                read_left[p] <= arlen[p*8 +: 8] + 9'd1;
            end
            if (rready[p])
                rvalid[p] <= 1'b0;
            if (reading[p] && (!rvalid[p] || rready[p])) begin
                rvalid[p] <= 1'b1;
                rdata[p*8*BYTES +: 8*BYTES] <=
                    (read_word[p] < WORDS) ? memory[read_word[p]] : {8*BYTES{1'b0}};
                rresp[p*2 +: 2] <= (read_word[p] < WORDS) ? 2'b00 : 2'b11;
                rlast[p] <= (read_left[p] == 9'd1);
                read_word[p] <= read_word[p] + 1;
                read_left[p] <= read_left[p] - 9'd1;
                reading[p] <= (read_left[p] != 9'd1);
                quiet <= 0;
            end
            if (awvalid[p] && awready[p]) begin
                writing[p] <= 1'b1;
                failed[p] <= 1'b0;
                write_word[p] <= awaddr[p*ADDRESS_BITS +: ADDRESS_BITS] / BYTES;
            end
            if (bready[p])
                bvalid[p] <= 1'b0;
            if (wvalid[p] && wready[p]) begin
                if (write_word[p] < WORDS) begin
                    merged = memory[write_word[p]];
                    for (i = 0; i < BYTES; i = i + 1)
                        if (wstrb[p*BYTES + i])
                            merged[8*i +: 8] = wdata[(p*BYTES + i)*8 +: 8];
                    memory[write_word[p]] = merged;
                end
                write_word[p] <= write_word[p] + 1;
                failed[p] <= failed[p] || !(write_word[p] < WORDS);
                if (wlast[p]) begin
                    writing[p] <= 1'b0;
                    bvalid[p] <= 1'b1;
                    bresp[p*2 +: 2] <= (failed[p] || !(write_word[p] < WORDS)) ? 2'b11 : 2'b00;
                end
                quiet <= 0;
            end
        end
        if (rst) begin
            reading <= {PORTS{1'b0}};
            writing <= {PORTS{1'b0}};
            failed <= {PORTS{1'b0}};
            rvalid <= {PORTS{1'b0}};
            bvalid <= {PORTS{1'b0}};
            quiet <= 0;
        end
    end

    // Registers -------------------------------------------------------------------------------
    // Inputs change at falling edges; what the rising edge between two of them will take is known
    // as soon as everything has settled.
    integer unanswered = 0;

    always @(posedge clk) begin
        unanswered <= (s_axi_bready && !s_axi_bvalid) || (s_axi_rready && !s_axi_rvalid)
                      ? unanswered + 1 : 0;
        if (unanswered == REGISTER_CYCLES) begin
            $display("FAIL the registers do not answer");
            $fatal;
        end
    end

    task write_register(input [11:0] offset, input [31:0] value);
        reg address_taken, value_taken, answered;
        begin
            s_axi_awaddr = offset;
            s_axi_wdata = value;
            s_axi_awvalid = 1'b1;
            s_axi_wvalid = 1'b1;
            s_axi_bready = 1'b1;
            answered = 1'b0;
            while (!answered) begin
                #1 address_taken = s_axi_awready;
                value_taken = s_axi_wready;
                answered = s_axi_bvalid;
                @(negedge clk);
                if (address_taken) s_axi_awvalid = 1'b0;
                if (value_taken) s_axi_wvalid = 1'b0;
            end
            s_axi_bready = 1'b0;
        end
    endtask

    task read_register(input [11:0] offset, output [31:0] value);
        reg address_taken, answered;
        begin
            s_axi_araddr = offset;
            s_axi_arvalid = 1'b1;
            s_axi_rready = 1'b1;
            answered = 1'b0;
            while (!answered) begin
                #1 address_taken = s_axi_arready;
                answered = s_axi_rvalid;
                value = s_axi_rdata;
                @(negedge clk);
                if (address_taken) s_axi_arvalid = 1'b0;
            end
            s_axi_rready = 1'b0;
        end
    endtask

    task check_register(input [11:0] offset, input [31:0] wanted);
        reg [31:0] value;
        begin
            read_register(offset, value);
            if (value != wanted) begin
                $display("FAIL register 0x%03x reads 0x%08x, not 0x%08x: it is another core",
                         offset, value, wanted);
                $fatal;
            end
        end
    endtask

    function [31:0] task_of(input integer job);
        case (job)
@TASKS@
            default: task_of = 32'h0;
        endcase
    endfunction

    // The run ---------------------------------------------------------------------------------
    integer pushed, finished, at, wrong;
    reg [31:0] status, value, code, info, cycles;

    task push;
        begin
            write_register(INPUT_BASE_LO, INPUT_ADDRESS + pushed * INPUT_STEP);
            write_register(INPUT_BASE_HI, 32'h0);
            write_register(OUTPUT_BASE_LO, OUTPUT_ADDRESS + pushed * OUTPUT_STEP);
            write_register(OUTPUT_BASE_HI, 32'h0);
            write_register(TASK, task_of(pushed));
            write_register(JOB_PUSH, 32'h1);
            pushed = pushed + 1;
        end
    endtask

    initial begin
        if ($test$plusargs("trace")) begin
            $dumpfile("testbench.vcd");
            $dumpvars(0, testbench);
        end
        for (at = 0; at < WORDS; at = at + 1)
            memory[at] = {8*BYTES{1'b0}};
        $readmemh("program.mem", memory, 0, PROGRAM_WORDS - 1);
        $readmemh("input.mem", memory, INPUT_ADDRESS / BYTES, OUTPUT_ADDRESS / BYTES - 1);
        $readmemh("output.mem", expected);
        $readmemh("output_mask.mem", mask);
        repeat (8) @(negedge clk);
        rst = 1'b0;
        repeat (2) @(negedge clk);
        check_register(MAGIC, MAGIC_VALUE);
        check_register(VERSION, VERSION_VALUE);
        check_register(ARCH_HASH, ARCH_HASH_VALUE);
        write_register(CONTROL, CONTROL_RESET | CONTROL_CLEAR_COUNTERS);
@PREPARE@
        pushed = 0;
        finished = 0;
        while (finished < JOBS) begin
            read_register(STATUS, status);
            while (pushed < JOBS && (status & STATUS_SPACE) != 0) begin
                push;
                read_register(STATUS, status);
            end
            while (!irq && quiet < QUIET) @(negedge clk);
            read_register(STATUS, status);
            if ((status & STATUS_ERROR) != 0) begin
                read_register(ERROR_CODE, code);
                read_register(ERROR_INFO_LO, info);
                $display("FAIL the core stopped: ERROR_CODE %0d, ERROR_INFO 0x%08x", code, info);
                $fatal;
            end
            if (!irq) begin
                $display("FAIL the core has done nothing for %0d cycles", QUIET);
                $fatal;
            end
            write_register(IRQ_STATUS, IRQ_STATUS_DONE | IRQ_STATUS_ERROR);
            read_register(JOBS_DONE, value);
            finished = value;
        end
        read_register(CYCLES_LO, cycles);
        wrong = 0;
        for (at = 0; at < JOBS * OUTPUT_STEP / BYTES; at = at + 1)
            if (((memory[OUTPUT_ADDRESS / BYTES + at] ^ expected[at]) & mask[at]) !== 0) begin
                if (wrong == 0)
                    $display("word %0d of the outputs is %0h, not %0h", at,
                             memory[OUTPUT_ADDRESS / BYTES + at], expected[at]);
                wrong = wrong + 1;
            end
        if (wrong != 0) begin
            $display("FAIL %0d words of the outputs differ from golden", wrong);
            $fatal;
        end
        $display("PASS %0d jobs equal golden, %0d cycles", JOBS, cycles);
        $finish;
    end
endmodule

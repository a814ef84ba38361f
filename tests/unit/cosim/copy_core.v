// The ports of a core around a copying machine, to test the simulator's harness.
// A job copies PROGRAM_COUNT beats from INPUT_BASE to OUTPUT_BASE in bursts of up to 4 beats (32
// bits), and shows each beat on the trace outputs as a write of MATMUL number beat / 4.
// PROGRAM_COUNT 0 never ends.
module copy_core(
    input clk, input rst,
    output reg [39:0] m_axi_araddr, output reg [7:0] m_axi_arlen, output [2:0] m_axi_arsize,
    output reg m_axi_arvalid, input m_axi_arready,
    input [0:0] m_axi_rid, input [31:0] m_axi_rdata, input [1:0] m_axi_rresp, input m_axi_rlast,
    input m_axi_rvalid, output m_axi_rready,
    output reg [39:0] m_axi_awaddr, output reg [7:0] m_axi_awlen, output [2:0] m_axi_awsize,
    output reg m_axi_awvalid, input m_axi_awready,
    output [31:0] m_axi_wdata, output [3:0] m_axi_wstrb, output m_axi_wlast,
    output m_axi_wvalid, input m_axi_wready,
    input [0:0] m_axi_bid, input [1:0] m_axi_bresp, input m_axi_bvalid, output m_axi_bready,
    input [11:0] s_axi_awaddr, input s_axi_awvalid, output s_axi_awready,
    input [31:0] s_axi_wdata, input [3:0] s_axi_wstrb, input s_axi_wvalid, output s_axi_wready,
    output [1:0] s_axi_bresp, output reg s_axi_bvalid, input s_axi_bready,
    input [11:0] s_axi_araddr, input s_axi_arvalid, output s_axi_arready,
    output reg [31:0] s_axi_rdata, output [1:0] s_axi_rresp, output reg s_axi_rvalid,
    input s_axi_rready,
    output irq,
    output trace_valid, output trace_wide, output [19:0] trace_addr, output [3:0] trace_mask,
    output [63:0] trace_lo, output [63:0] trace_hi, output [7:0] trace_seq,
    output trace_mover_valid, output [7:0] trace_row_seq, output [15:0] trace_events,
    output trace_router
);
    assign m_axi_arsize = 2;
    assign m_axi_awsize = 2;
    assign m_axi_wstrb = 15;
    assign s_axi_bresp = 0;
    assign s_axi_rresp = 0;

    reg [31:0] count, source, target, jobs, left;
    reg [31:0] status_irq, error_code, cycles;
    reg [7:0] queued;
    assign irq = status_irq != 0;

    // registers: one access at a time
    wire write = s_axi_awvalid && s_axi_wvalid && !s_axi_bvalid;
    assign s_axi_awready = write;
    assign s_axi_wready = write;
    wire read = s_axi_arvalid && !s_axi_rvalid;
    assign s_axi_arready = read;

    // copying: read a burst, then write it
    localparam IDLE = 0, AR = 1, R = 2, AW = 3, W = 4, B = 5;
    reg [2:0] state;
    reg [31:0] buffer [0:3];
    reg [2:0] at, beats;
    reg [31:0] done;
    wire [31:0] page = (32'd4096 - {20'd0, source[11:0]}) >> 2;
    wire [31:0] page2 = (32'd4096 - {20'd0, target[11:0]}) >> 2;
    wire [31:0] fit = page < page2 ? page : page2;
    wire [31:0] want = left < 4 ? left : 4;
    wire [31:0] now = want < fit ? want : fit;
    assign m_axi_rready = state == R;
    assign m_axi_wvalid = state == W;
    assign m_axi_wdata = buffer[at[1:0]];
    assign m_axi_wlast = at + 1 == beats;
    assign m_axi_bready = state == B;
    assign trace_valid = m_axi_wvalid && m_axi_wready;
    assign trace_wide = 0;
    assign trace_addr = done[19:0];
    assign trace_mask = 4'b0011;
    assign trace_lo = {32'd0, m_axi_wdata};
    assign trace_hi = 0;
    assign trace_seq = done[9:2];
    assign trace_mover_valid = 0;
    assign trace_row_seq = 0;
    assign trace_events = 0;
    assign trace_router = 0;

    always @(posedge clk) begin
        cycles <= cycles + 1;
        if (s_axi_bvalid && s_axi_bready) s_axi_bvalid <= 0;
        if (s_axi_rvalid && s_axi_rready) s_axi_rvalid <= 0;
        if (write) begin
            s_axi_bvalid <= 1;
            case (s_axi_awaddr)
                12'h18: status_irq <= status_irq & ~s_axi_wdata;
                12'h34: count <= s_axi_wdata;
                12'h38: source <= s_axi_wdata;
                12'h40: target <= s_axi_wdata;
                12'h48: begin queued <= 1; left <= count; end
            endcase
        end
        if (read) begin
            s_axi_rvalid <= 1;
            case (s_axi_araddr)
                12'h00: s_axi_rdata <= 32'h59465456;
                12'h08: s_axi_rdata <= 32'h15011c36;
                12'h10: s_axi_rdata <= (state != IDLE || queued != 0) | (error_code != 0) << 1
                                       | (queued == 0 && state == IDLE) << 8;
                12'h1c: s_axi_rdata <= jobs;
                12'h20: s_axi_rdata <= error_code;
                12'h80: s_axi_rdata <= cycles;
                default: s_axi_rdata <= 0;
            endcase
        end
        case (state)
            IDLE: if (queued != 0) begin queued <= 0; state <= count == 0 ? 7 : AR; end
            AR: begin
                m_axi_araddr <= {8'd0, source};
                m_axi_arlen <= now[7:0] - 1;
                beats <= now[2:0];
                m_axi_arvalid <= 1;
                at <= 0;
                if (m_axi_arvalid && m_axi_arready) begin m_axi_arvalid <= 0; state <= R; end
            end
            R: if (m_axi_rvalid) begin
                buffer[at[1:0]] <= m_axi_rdata;
                if (m_axi_rresp != 0) error_code <= 2;
                at <= at + 1;
                if (m_axi_rlast) begin at <= 0; state <= AW; end
            end
            AW: begin
                m_axi_awaddr <= {8'd0, target};
                m_axi_awlen <= {5'd0, beats} - 1;
                m_axi_awvalid <= 1;
                if (m_axi_awvalid && m_axi_awready) begin m_axi_awvalid <= 0; state <= W; end
            end
            W: if (m_axi_wready) begin
                at <= at + 1;
                done <= done + 1;
                if (m_axi_wlast) state <= B;
            end
            B: if (m_axi_bvalid) begin
                source <= source + {27'd0, beats, 2'd0};
                target <= target + {27'd0, beats, 2'd0};
                left <= left - {29'd0, beats};
                if (error_code != 0) begin state <= 7; status_irq <= 2; end
                else if (left == {29'd0, beats}) begin
                    state <= IDLE; status_irq <= 1; jobs <= jobs + 1;
                end else state <= AR;
            end
        endcase
        if (rst) begin
            {m_axi_arvalid, m_axi_awvalid, s_axi_bvalid, s_axi_rvalid} <= 0;
            {status_irq, error_code, jobs, queued, done, cycles} <= 0;
            state <= IDLE;
        end
    end
endmodule

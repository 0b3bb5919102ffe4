// A register stage for one stream, and the ways a stream goes wrong, one per macro. The test bench must notice each.
module defects (
    input clk, input rst,
    input [15:0] i__payload, input i__valid, output i__ready,
    output [15:0] o__payload, output o__valid, input o__ready
);
  reg full;
  reg [15:0] held;
  reg [7:0] count;

`ifdef DROPS_VALID
  assign o__valid = full & (count[1:0] != 2'd3);
`elsif WAITS_FOR_READY
  assign o__valid = full & o__ready;
`elsif HANGS
  assign o__valid = full & (count != 8'd100);
`else
  assign o__valid = full;
`endif
`ifdef CHANGES_PAYLOAD
  assign o__payload = held ^ {15'd0, o__ready};
`elsif CORRUPTS
  assign o__payload = (count == 8'd77) ? held ^ 16'd1 : held;
`else
  assign o__payload = held;
`endif
  assign i__ready = ~full | (o__ready & o__valid);

  always @(posedge clk) begin
    count <= count + 8'd1;
`ifdef HANGS
    if (count == 8'd100) count <= 8'd100;
`endif
    if (i__valid & i__ready) begin
      full <= 1'b1;
      held <= i__payload;
    end else if (o__valid & o__ready) begin
`ifdef REPEATS_LAST
      full <= count[2];
`else
      full <= 1'b0;
`endif
    end
    if (rst) begin
      count <= 8'd0;
`ifndef LACKS_RESET
      full <= 1'b0;
`endif
    end
  end
endmodule

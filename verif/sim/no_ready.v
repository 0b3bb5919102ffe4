// A pipeline without back-pressure: the sum of two operands, one cycle later.
module no_ready (
    input clk, input rst, input [33:0] a, input [7:0] b, input valid, output reg [33:0] sum, output reg sum_valid
);
  always @(posedge clk) begin
    sum <= a + {26'd0, b};
    sum_valid <= valid & ~rst;
  end
endmodule

// Every byte is the number that its digits spell.
module claims (input [7:0] value);
  wire [9:0] digits;
  wire invalid;
  trit_decoder dut (.byte_(value), .digits(digits), .invalid(invalid));
  wire [1:0] d0 = digits[1:0], d1 = digits[3:2], d2 = digits[5:4], d3 = digits[7:6], d4 = digits[9:8];
  wire [9:0] spelled = d0 + 3 * d1 + 9 * d2 + 27 * d3 + 81 * d4;
  always @* begin
    assert (invalid == (value > 242));
    if (!invalid) begin
      assert (d0 < 3 && d1 < 3 && d2 < 3 && d3 < 3 && d4 < 3);
      assert (spelled == value);
    end
  end
endmodule

// What a SkidBuffer promises, against a queue of two. `skid` is connected to the buffer's own register, which induction
// has to know.
module claims (input clk, input rst, input [3:0] data, input offer, input take);
  wire ready, valid;
  wire [3:0] payload;
  (* keep *) wire [3:0] skid;
  skid_buffer dut (
    .clk(clk), .rst(rst), .i__payload(data), .i__valid(offer), .i__ready(ready),
    .o__payload(payload), .o__valid(valid), .o__ready(take)
  );

  reg started = 0;
  reg [1:0] count = 0;
  reg [3:0] first, second;
  reg held = 0;
  reg [3:0] before;
  wire in = offer && ready, out = valid && take;

  always @(posedge clk) begin
    started <= 1;
    held <= !rst && valid && !take;
    before <= payload;
    if (rst) count <= 0;
    else begin
      count <= count + in - out;
      if (out) first <= second;
      if (in) begin
        if (count - out == 0) first <= data;
        else second <= data;
      end
    end
  end

  always @* begin
    if (!started) assume (rst);
    else begin
      assert (count <= 2);
      assert (valid == (count != 0));
      assert (ready == (count != 2));
      if (count != 0) assert (payload == first);
      if (count == 2) assert (skid == second);
      if (held) assert (valid && payload == before);
    end
  end
endmodule

// The front of the attention cores, fed by any source that keeps the rules of streams and any sinks. `state` and
// `upper` are connected to the front's own, which induction has to know.
module claims (
  input clk, input rst, input [130:0] beat, input offer, input take_block, input take_word, input take_row
);
  wire ready, block, word, row;
  wire [71:0] entry;
  wire [64:0] words;
  wire [128:0] rows;
  (* keep *) wire [1:0] state;
  (* keep *) wire upper;
  packet_front dut (
    .clk(clk), .rst(rst), .i__payload(beat), .i__valid(offer), .i__ready(ready),
    .entries__payload(entry), .entries__valid(block), .entries__ready(take_block),
    .words__payload(words), .words__valid(word), .words__ready(take_word),
    .rows__payload(rows), .rows__valid(row), .rows__ready(take_row)
  );
  localparam HEADER = 0, DRAIN = 3;
  wire last = beat[128], exact = beat[129], took = offer && ready;
  wire [3:0] error = entry[67:64];
  wire bare = entry[68];

  reg started = 0;
  reg begun = 0;           // the packet at the input has given its entry
  reg half = 0;            // its lower word has been taken
  reg drained = 0;         // the packet's header was refused
  reg held = 0, held_block = 0, held_word = 0, held_row = 0;
  reg [130:0] before;
  reg [128:0] row_before;
  reg [64:0] word_before;
  reg [71:0] entry_before;

  always @(posedge clk) begin
    started <= 1;
    held <= !rst && offer && !ready;
    before <= beat;
    held_block <= !rst && block && !take_block;
    held_word <= !rst && word && !take_word;
    held_row <= !rst && row && !take_row;
    entry_before <= entry;
    word_before <= words;
    row_before <= rows;
    if (rst) begin
      begun <= 0;
      half <= 0;
      drained <= 0;
    end else begin
      begun <= (begun || (block && take_block)) && !(took && last);
      half <= !took && (half || (block && take_block && !exact) || (word && take_word));
      if (block && take_block) drained <= !exact && error != 0;
      else if (took && last) drained <= 0;
    end
  end

  always @* begin
    if (!started) assume (rst);
    if (held) assume (offer && beat == before);
    if (started) begin
      assert (half == upper && (begun || !half));
      assert ((state == HEADER) == !begun && drained == (state == DRAIN));
      // A word or a beat goes to one stream, or nowhere if its packet's header was refused.
      assert (block + word + row <= 1);
      if (took) assert ((word && take_word && half) || (row && take_row) || drained);
      if (word && take_word) assert (took == half);
      if (row && take_row) assert (took);
      if (block) assert (!took);
      // Each packet gives one entry, with its first word; whatever came before.
      assert (block == (offer && !begun));
      if (block) assert (entry[63:0] == beat[63:0] && bare == (error != 0) && entry[71:70] == beat[130:129]);
      if (drained) assert (!block && !word && !row);
      // Words and rows are as they came, the last word of a cut packet says so.
      if (word) assert (words == {half && last, half ? beat[127:64] : beat[63:0]});
      if (row) assert (rows == beat[128:0]);
      // Never hangs: nothing waits but for a sink.
      if (offer) assert (block || word || row || ready);
      // Valid and payload stay until the transfer.
      if (held_block) assert (block && entry == entry_before);
      if (held_word) assert (word && words == word_before);
      if (held_row) assert (row && rows == row_before);
    end
  end
endmodule

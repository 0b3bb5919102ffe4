// The parser of a 16-lane engine, fed by any source that keeps the rules of streams and any sinks. `state` is connected
// to the parser's own, which induction has to know.
module claims (
  input clk, input rst, input [64:0] beat, input offer, input take_block, input take_word, input take_row
);
  wire ready, block, word, row;
  wire [69:0] entry;
  wire [64:0] words, rows;
  (* keep *) wire [1:0] state;
  packet_parser dut (
    .clk(clk), .rst(rst), .i__payload(beat), .i__valid(offer), .i__ready(ready),
    .blocks__payload(entry), .blocks__valid(block), .blocks__ready(take_block),
    .words__payload(words), .words__valid(word), .words__ready(take_word),
    .rows__payload(rows), .rows__valid(row), .rows__ready(take_row)
  );
  wire last = beat[64], took = offer && ready;
  wire [3:0] error = entry[67:64];
  wire bare = entry[68];

  reg started = 0;
  reg fresh = 0;           // the next beat is a header
  reg drained = 0;         // the packet's header was refused
  reg held = 0, held_block = 0, held_word = 0, held_row = 0;
  reg [64:0] before;
  reg [69:0] entry_before;

  always @(posedge clk) begin
    started <= 1;
    held <= !rst && offer && !ready;
    before <= beat;
    held_block <= !rst && block && !take_block;
    held_word <= !rst && word && !take_word;
    held_row <= !rst && row && !take_row;
    entry_before <= entry;
    if (rst) begin
      fresh <= 1;
      drained <= 0;
    end else if (took) begin
      fresh <= last;
      drained <= !last && (fresh ? error != 0 : drained);
    end
  end

  always @* begin
    if (!started) assume (rst);
    if (held) assume (offer && beat == before);
    if (started) begin
      assert (fresh == (state == 0) && drained == (state == 2));
      // A beat goes to one stream, or nowhere if its packet's header was refused.
      assert (block + word + row <= 1);
      if (took) assert ((block && take_block) || (word && take_word) || (row && take_row) || drained);
      if ((block && take_block) || (word && take_word) || (row && take_row)) assert (took);
      // Each packet gives one entry, with its first beat; whatever came before.
      assert (block == (offer && fresh));
      if (block) begin
        assert (entry[63:0] == beat[63:0]);
        assert (bare == (last || error != 0));
        if (last) assert (error != 0);
      end
      if (drained) assert (!block && !word && !row);
      // Words and rows are the beats as they came, the last word of a cut packet says so.
      if (word) assert (words == beat);
      if (row) assert (rows == beat);
      // Never hangs: nothing waits but for a sink.
      if (offer && take_block && take_word && take_row) assert (ready);
      // Valid and payload stay until the transfer.
      if (held_block) assert (block && entry == entry_before);
      if (held_word) assert (word && words == before);
      if (held_row) assert (row && rows == before);
    end
  end
endmodule

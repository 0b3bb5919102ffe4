// One register stage for a stream spelled as AXI4-Stream does: adds `offset` to the data, counts packets.
module axi_stage (
    input aclk, input aresetn,
    input [39:0] s_axis_tdata, input s_axis_tlast, input [1:0] s_axis_tuser, input s_axis_tvalid, output s_axis_tready,
    output reg [39:0] m_axis_tdata, output reg m_axis_tlast, output reg [1:0] m_axis_tuser, output reg m_axis_tvalid,
    input m_axis_tready,
    input [7:0] offset, output reg [99:0] packets
);
  assign s_axis_tready = ~m_axis_tvalid | m_axis_tready;
  always @(posedge aclk) begin
    if (s_axis_tready) m_axis_tvalid <= s_axis_tvalid;
    if (s_axis_tready & s_axis_tvalid) begin
      m_axis_tdata <= s_axis_tdata + {32'd0, offset};
      m_axis_tlast <= s_axis_tlast;
      m_axis_tuser <= s_axis_tuser;
      if (s_axis_tlast) packets <= packets + {1'b1, 99'd0} + 100'd1;
    end
    if (!aresetn) begin
      m_axis_tvalid <= 1'b0;
      packets <= 100'd0;
    end
  end
endmodule

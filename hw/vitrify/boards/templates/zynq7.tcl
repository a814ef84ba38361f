create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 ps
apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \
    -config {make_external "FIXED_IO, DDR" apply_board_preset "1" Master "Disable" Slave "Disable"} \
    [get_bd_cells ps]
set_property -dict [list \
    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ @{clock} \
    CONFIG.PCW_USE_M_AXI_GP0 1 \
    @{port_settings} \
    CONFIG.PCW_USE_FABRIC_INTERRUPT 1 \
    CONFIG.PCW_IRQ_F2P_INTR 1 \
] [get_bd_cells ps]
set ps_clock ps/FCLK_CLK0
set ps_clock_users {ps/M_AXI_GP0_ACLK @{port_clocks}}
set ps_reset ps/FCLK_RESET0_N
set ps_master ps/M_AXI_GP0
set ps_slaves {@{port_slaves}}
set ps_interrupt ps/IRQ_F2P
set ps_space ps/Data
set ps_memories {@{port_segments}}

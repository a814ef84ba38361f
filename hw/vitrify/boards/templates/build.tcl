# Makes the whole project for @{board}, and its bitstream:
#
#   vivado -mode batch -source build.tcl
#
# Core @{name} (arch hash @{hash}) at @{registers}; results: system.bit, system.hwh, system.xsa.

set here [file dirname [file normalize [info script]]]
set jobs 4

create_project vitrify $here/project -part @{part} -force
# Board files bring the pins and the DDR settings of the processing system.
if {[llength [get_board_parts -quiet @{board_part}]] > 0} {
    set_property board_part @{board_part} [current_project]
} else {
    puts "WARNING: no board files for @{board_part}: check the DDR settings of the processing system"
}
set_property ip_repo_paths $here/ip [current_project]
update_ip_catalog

create_bd_design system
create_bd_cell -type ip -vlnv @{vlnv} core
@{system}
# Registers; a port of the core to each port of the memory.
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect registers
set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI 1] [get_bd_cells registers]
connect_bd_intf_net [get_bd_intf_pins $ps_master] [get_bd_intf_pins registers/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins registers/M00_AXI] [get_bd_intf_pins core/@{control}]
set connects {registers}
foreach port {@{port_core}} slave $ps_slaves {
    set cell memory_$port
    create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect $cell
    set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI 1] [get_bd_cells $cell]
    connect_bd_intf_net [get_bd_intf_pins core/$port] [get_bd_intf_pins $cell/S00_AXI]
    connect_bd_intf_net [get_bd_intf_pins $cell/M00_AXI] [get_bd_intf_pins $slave]
    lappend connects $cell
}

# One clock, one reset.
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset
connect_bd_net [get_bd_pins $ps_reset] [get_bd_pins reset/ext_reset_in]
set clock_users [concat $ps_clock_users {core/clk reset/slowest_sync_clk}]
foreach cell $connects { lappend clock_users $cell/aclk }
foreach pin $clock_users {
    connect_bd_net [get_bd_pins $ps_clock] [get_bd_pins $pin]
}
connect_bd_net [get_bd_pins reset/peripheral_reset] [get_bd_pins core/rst]
foreach cell $connects {
    connect_bd_net [get_bd_pins reset/peripheral_aresetn] [get_bd_pins $cell/aresetn]
}
connect_bd_net [get_bd_pins core/@{irq}] [get_bd_pins $ps_interrupt]

# Address map.
assign_bd_address -offset @{registers} -range @{register_bytes} \
    -target_address_space [get_bd_addr_spaces $ps_space] \
    [get_bd_addr_segs core/@{control}/@{block}]
foreach port {@{port_core}} segment $ps_memories {
    assign_bd_address -offset 0x00000000 -range @{memory_bytes} \
        -target_address_space [get_bd_addr_spaces core/$port] [get_bd_addr_segs $segment]
}
validate_bd_design
save_bd_design

set design [get_files system.bd]
add_files -norecurse [make_wrapper -files $design -top]
set_property top system_wrapper [current_fileset]
add_files -fileset constrs_1 $here/@{timing}

launch_runs impl_1 -to_step write_bitstream -jobs $jobs
wait_on_run impl_1
if {[get_property PROGRESS [get_runs impl_1]] ne "100%"} {
    error "the bitstream was not made; see $here/project/vitrify.runs/impl_1"
}
open_run impl_1
report_utilization -file $here/utilisation.rpt
report_timing_summary -file $here/timing.rpt
write_hw_platform -fixed -include_bit -force $here/system.xsa
file copy -force $here/project/vitrify.runs/impl_1/system_wrapper.bit $here/system.bit
file copy -force \
    [lindex [glob $here/project/vitrify.gen/sources_1/bd/system/hw_handoff/system.hwh] 0] \
    $here/system.hwh
puts "system.bit and system.hwh are in $here"

//! The example of the documentation does what it says.

#[path = "../examples/swarm.rs"]
mod swarm;

#[test]
fn two_swarms_connect_and_the_listener_sees_a_port_of_the_range() {
    if let Err(error) = swarm::main() {
        panic!("{error}");
    }
}

//! What a behaviour has to say of connections that are all alike to it.

/// Every connection has the same handler, inbound or outbound.
macro_rules! every_connection {
    ($this:ident => $handler:expr) => {
        fn handle_established_inbound_connection(
            &mut $this,
            _: libp2p::swarm::ConnectionId,
            _: libp2p::PeerId,
            _: &libp2p::Multiaddr,
            _: &libp2p::Multiaddr,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            Ok($handler)
        }

        fn handle_established_outbound_connection(
            &mut $this,
            _: libp2p::swarm::ConnectionId,
            _: libp2p::PeerId,
            _: &libp2p::Multiaddr,
            _: libp2p::core::Endpoint,
            _: libp2p::core::transport::PortUse,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            Ok($handler)
        }

        fn on_swarm_event(&mut self, _: libp2p::swarm::FromSwarm) {}
    };
}

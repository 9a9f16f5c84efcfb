package main

import (
	"context"

	rendezvous "github.com/berty/go-libp2p-rendezvous"
	sqlite "github.com/berty/go-libp2p-rendezvous/db/sqlite"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/multiformats/go-multiaddr"
)

// every keeps loopback addresses, which are all there are here.
func every(multiaddr.Multiaddr) bool { return true }

// services are what the peer does for others.
type services struct {
	rendezvous, dht, relay *bool
}

// options adds what a relay needs: that it believes to be reachable although it listens on loopback alone.
func (s services) options(options ...libp2p.Option) []libp2p.Option {
	if *s.relay {
		options = append(options,
			libp2p.ForceReachabilityPublic(),
			libp2p.EnableRelayService(relay.WithInfiniteLimits(), relay.WithReservationAddressFilter(every)),
		)
	}
	return options
}

func (s services) start(ctx context.Context, h host.Host) error {
	if *s.rendezvous {
		db, err := sqlite.OpenDB(ctx, ":memory:")
		if err != nil {
			return err
		}
		rendezvous.NewRendezvousService(h, db)
	}
	if *s.dht {
		// Loopback addresses are all there are.
		all := func(addresses []multiaddr.Multiaddr) []multiaddr.Multiaddr { return addresses }
		_, err := dht.New(ctx, h, dht.Mode(dht.ModeServer), dht.AddressFilter(all), dht.BootstrapPeers())
		if err != nil {
			return err
		}
	}
	return nil
}

// A plain libp2p peer made of public Go modules, for tests to talk to.
//
// It reads one command a line from standard input and writes one event a line to standard output; it ends with its
// input. Bytes are hexadecimal, or "zeros:<count>".
//
//	dial <address>                        connect
//	subscribe <topic>                     subscribe
//	publish <topic> <bytes>               publish
//	frame <protocol> <peer> <bytes>       open a stream, write one frame, close
//	exchange <protocol> <peer> <bytes>    open a stream, write one frame, read one
//	put <bytes>                           store a block as dag-cbor
//	get <cid>                             fetch a block by bitswap
//
// The flags name the protocols on which it accepts frames (reported, then the stream is reset) and exchanges (each frame is
// sent back). With -rendezvous, -dht and -relay it is a server for others.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

// frameBytesMax is the longest frame accepted.
const frameBytesMax = 4 * 1024 * 1024

// patience is how long a command may take.
const patience = 30 * time.Second

const dagCbor = 0x71

func main() {
	listen := flag.String("listen", "/ip4/127.0.0.1/tcp/0", "address to listen on")
	frames := flag.String("frames", "", "protocols on which to accept frames, separated by commas")
	exchanges := flag.String("exchanges", "", "protocols on which to accept exchanges, separated by commas")
	services := services{
		rendezvous: flag.Bool("rendezvous", false, "be a rendezvous server, as Berty runs it"),
		dht:        flag.Bool("dht", false, "be a server of the Kademlia DHT"),
		relay:      flag.Bool("relay", false, "be a relay without limits"),
	}
	flag.Parse()

	node, err := start(*listen, split(*frames), split(*exchanges), services)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer node.host.Close()

	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4*frameBytesMax)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		go func() {
			if err := node.obey(words[0], words[1:]); err != nil {
				report("error", words[0], err)
			}
		}()
	}
}

type node struct {
	host    host.Host
	pubsub  *pubsub.PubSub
	store   blockstore.Blockstore
	bitswap *bitswap.Bitswap

	mutex  sync.Mutex
	topics map[string]*pubsub.Topic
}

func start(listen string, frames, exchanges []string, services services) (*node, error) {
	ctx := context.Background()
	h, err := libp2p.New(services.options(libp2p.ListenAddrStrings(listen))...)
	if err != nil {
		return nil, err
	}
	if err := services.start(ctx, h); err != nil {
		return nil, err
	}
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithMessageSigning(true), pubsub.WithStrictSignatureVerification(true))
	if err != nil {
		return nil, err
	}
	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	net := bsnet.NewFromIpfsHost(h)
	bs := bitswap.New(ctx, net, nil, store)
	net.Start(bs)

	n := &node{host: h, pubsub: ps, store: store, bitswap: bs, topics: map[string]*pubsub.Topic{}}
	for _, name := range frames {
		h.SetStreamHandler(protocol.ID(name), receiveFrame)
	}
	for _, name := range exchanges {
		h.SetStreamHandler(protocol.ID(name), echoFrames)
	}
	identified, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return nil, err
	}
	updated, err := h.EventBus().Subscribe(new(event.EvtPeerProtocolsUpdated))
	if err != nil {
		return nil, err
	}
	go func() {
		for e := range identified.Out() {
			e := e.(event.EvtPeerIdentificationCompleted)
			report("identified", e.Peer, strconv.Quote(e.AgentVersion), join(e.Protocols))
		}
	}()
	go func() {
		for e := range updated.Out() {
			e := e.(event.EvtPeerProtocolsUpdated)
			report("updated", e.Peer, "+"+join(e.Added), "-"+join(e.Removed))
		}
	}()
	for _, address := range h.Addrs() {
		report("listening", fmt.Sprintf("%s/p2p/%s", address, h.ID()))
	}
	return n, nil
}

func (n *node) obey(command string, args []string) error {
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch command {
	case "dial":
		info, err := peer.AddrInfoFromString(arg(0))
		if err != nil {
			return err
		}
		if err := n.host.Connect(ctx, *info); err != nil {
			return err
		}
		report("connected", info.ID)
	case "subscribe":
		return n.subscribe(arg(0))
	case "publish":
		data, err := parse(arg(1))
		if err != nil {
			return err
		}
		topic, err := n.topic(arg(0))
		if err != nil {
			return err
		}
		return topic.Publish(ctx, data)
	case "frame", "exchange":
		to, err := peer.Decode(arg(1))
		if err != nil {
			return err
		}
		data, err := parse(arg(2))
		if err != nil {
			return err
		}
		stream, err := n.host.NewStream(ctx, to, protocol.ID(arg(0)))
		if err != nil {
			return err
		}
		if command == "frame" {
			return sendFrame(stream, data)
		}
		return exchange(stream, data)
	case "put":
		data, err := parse(arg(0))
		if err != nil {
			return err
		}
		hash, err := multihash.Sum(data, multihash.SHA2_256, -1)
		if err != nil {
			return err
		}
		block, err := blocks.NewBlockWithCid(data, cid.NewCidV1(dagCbor, hash))
		if err != nil {
			return err
		}
		if err := n.store.Put(ctx, block); err != nil {
			return err
		}
		if err := n.bitswap.NotifyNewBlocks(ctx, block); err != nil {
			return err
		}
		report("stored", block.Cid())
	case "get":
		name, err := cid.Decode(arg(0))
		if err != nil {
			return err
		}
		block, err := n.bitswap.GetBlock(ctx, name)
		if err != nil {
			return err
		}
		report("block", block.Cid(), describe(block.RawData()))
	default:
		return errors.New("unknown command")
	}
	return nil
}

func (n *node) topic(name string) (*pubsub.Topic, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if topic, ok := n.topics[name]; ok {
		return topic, nil
	}
	topic, err := n.pubsub.Join(name)
	if err == nil {
		n.topics[name] = topic
	}
	return topic, err
}

func (n *node) subscribe(name string) error {
	topic, err := n.topic(name)
	if err != nil {
		return err
	}
	peers, err := topic.EventHandler()
	if err != nil {
		return err
	}
	messages, err := topic.Subscribe()
	if err != nil {
		return err
	}
	go func() {
		for {
			e, err := peers.NextPeerEvent(context.Background())
			if err != nil {
				return
			}
			if e.Type == pubsub.PeerJoin {
				report("joined", name, e.Peer)
			} else {
				report("left", name, e.Peer)
			}
		}
	}()
	go func() {
		for {
			m, err := messages.Next(context.Background())
			if err != nil {
				return
			}
			if m.ReceivedFrom != n.host.ID() {
				report("message", name, m.GetFrom(), describe(m.Data))
			}
		}
	}()
	report("subscribed", name)
	return nil
}

func receiveFrame(stream network.Stream) {
	defer stream.Reset()
	data, err := readFrame(bufio.NewReader(stream))
	if err != nil {
		report("error", "receive", err)
		return
	}
	report("frame", stream.Protocol(), stream.Conn().RemotePeer(), describe(data))
}

func echoFrames(stream network.Stream) {
	defer stream.Close()
	reader := bufio.NewReader(stream)
	for {
		data, err := readFrame(reader)
		if err != nil {
			return
		}
		if err := writeFrame(stream, data); err != nil {
			return
		}
	}
}

func sendFrame(stream network.Stream, data []byte) error {
	if err := writeFrame(stream, data); err != nil {
		stream.Reset()
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	report("sent", stream.Protocol())
	return nil
}

func exchange(stream network.Stream, data []byte) error {
	defer stream.Close()
	if err := writeFrame(stream, data); err != nil {
		return err
	}
	answer, err := readFrame(bufio.NewReader(stream))
	if err != nil {
		return err
	}
	report("answer", stream.Protocol(), describe(answer))
	return nil
}

func writeFrame(w io.Writer, data []byte) error {
	_, err := w.Write(append(varint.ToUvarint(uint64(len(data))), data...))
	return err
}

func readFrame(r *bufio.Reader) ([]byte, error) {
	length, err := varint.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if length > frameBytesMax {
		return nil, errors.New("frame too long")
	}
	data := make([]byte, length)
	_, err = io.ReadFull(r, data)
	return data, err
}

func parse(text string) ([]byte, error) {
	if count, ok := strings.CutPrefix(text, "zeros:"); ok {
		n, err := strconv.Atoi(count)
		return make([]byte, max(n, 0)), err
	}
	return hex.DecodeString(text)
}

// describe gives length and digest of bytes, since they may be many.
func describe(data []byte) string {
	return fmt.Sprintf("%d %x", len(data), sha256.Sum256(data))
}

var output sync.Mutex

func report(words ...any) {
	output.Lock()
	defer output.Unlock()
	fmt.Fprintln(os.Stdout, words...)
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func join(ids []protocol.ID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return strings.Join(names, ",")
}

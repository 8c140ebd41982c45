package netsvr

import (
	"fmt"
	"time"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"google.golang.org/protobuf/proto"
)

// Bus sends commands and queries as the SDKs' NetBus does: through a pool of task connections, and
// in generation 5 one-way commands through the registered connection.
type Bus struct {
	addr   string
	main   *Socket
	idle   chan *Socket
	places chan struct{}
}

// NewBus makes a bus whose pool opens at most size connections, when they are needed. A main
// socket that is not nil carries the one-way commands.
func NewBus(addr string, size int, main *Socket) *Bus {
	return &Bus{
		addr: addr, main: main, idle: make(chan *Socket, size), places: make(chan struct{}, size),
	}
}

// Send sends a one-way command.
func (b *Bus) Send(cmd pb.Cmd, message proto.Message) error {
	frame := Pack(cmd, message)
	if b.main != nil {
		return b.main.Send(frame)
	}
	return b.with(func(s *Socket) error { return s.Send(frame) })
}

// Query sends a query on a connection of the pool and reads its answer.
func (b *Bus) Query(cmd pb.Cmd, request, response proto.Message) error {
	return b.with(func(s *Socket) error { return s.Query(cmd, request, response) })
}

// Heartbeat sends one heartbeat on every idle connection.
func (b *Bus) Heartbeat() error {
	for range len(b.idle) {
		if err := b.with(func(s *Socket) error { return s.Send(PackHeartbeat()) }); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the idle connections.
func (b *Bus) Close() {
	for {
		select {
		case s := <-b.idle:
			s.Close()
		default:
			return
		}
	}
}

func (b *Bus) with(use func(*Socket) error) error {
	socket, err := b.take()
	if err != nil {
		return err
	}
	if err := use(socket); err != nil {
		socket.Close()
		<-b.places
		return err
	}
	b.idle <- socket
	return nil
}

func (b *Bus) take() (*Socket, error) {
	select {
	case s := <-b.idle:
		return s, nil
	default:
	}
	select {
	case s := <-b.idle:
		return s, nil
	case b.places <- struct{}{}:
		s, err := Dial(b.addr)
		if err != nil {
			<-b.places
		}
		return s, err
	case <-time.After(30 * time.Second):
		return nil, fmt.Errorf("no task connection became free")
	}
}

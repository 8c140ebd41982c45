package netsvr

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync"
	"time"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Events that a worker registers for.
const (
	OnOpen    int32 = 1
	OnClose   int32 = 2
	OnMessage int32 = 4
	AllEvents       = OnOpen | OnClose | OnMessage
)

// ConnOpen is what both generations of that message say; only generation 5 has SubProtocol.
type ConnOpen struct {
	UniqId, RawQuery, XForwardedFor, XRealIp, RemoteAddr string
	SubProtocol                                          []string
}

// Event is one frame from the gateway to a worker; exactly one field is set.
type Event struct {
	Open    *ConnOpen
	Message *pb.Transfer
	Close   *pb.ConnClose
}

// UniqId is the connection that an event is about.
func (e Event) UniqId() string {
	switch {
	case e.Open != nil:
		return e.Open.UniqId
	case e.Message != nil:
		return e.Message.UniqId
	default:
		return e.Close.UniqId
	}
}

// Worker is a registered connection (the SDKs' main socket). Events come in order of arrival.
type Worker struct {
	Socket *Socket
	ConnId string
	Events chan Event

	generation int
	ended      chan struct{}
	end        error
	stop       chan struct{}
	stopOnce   sync.Once
}

// RegisterRequest encodes RegisterReq; generation 5 asks for 25 goroutines as SDK-php does.
func RegisterRequest(generation int, events int32) []byte {
	body := protowire.AppendTag(nil, 1, protowire.VarintType)
	body = protowire.AppendVarint(body, uint64(events))
	if generation == 5 {
		body = protowire.AppendTag(body, 2, protowire.VarintType)
		body = protowire.AppendVarint(body, 25)
	}
	return PackRaw(pb.Cmd_Register, body)
}

// Register connects, registers and starts reading events and sending heartbeats.
func Register(addr string, generation int, events int32) (*Worker, error) {
	socket, err := Dial(addr)
	if err != nil {
		return nil, err
	}
	if err := socket.Send(RegisterRequest(generation, events)); err != nil {
		return nil, err
	}
	response := &pb.RegisterResp{}
	if err := socket.Answer(pb.Cmd_Register, response); err != nil {
		return nil, err
	}
	if response.Code != pb.RegisterRespCode_Success || response.ConnId == "" {
		return nil, fmt.Errorf("registration refused: %v", response)
	}
	w := &Worker{
		Socket: socket, ConnId: response.ConnId, Events: make(chan Event, 200_000),
		generation: generation, ended: make(chan struct{}), stop: make(chan struct{}),
	}
	go w.read()
	go w.beat(time.Second)
	return w, nil
}

// Unregister takes the worker out of the gateway's lists and waits for the answer: on its own
// connection in generation 6, through another connection in generation 5 (section 10.4).
func (w *Worker) Unregister(other *Socket) error {
	w.stopOnce.Do(func() { close(w.stop) })
	request := &pb.UnRegisterReq{ConnId: w.ConnId}
	if other != nil {
		return other.Query(pb.Cmd_Unregister, request, &pb.UnRegisterResp{})
	}
	if err := w.Socket.Send(Pack(pb.Cmd_Unregister, request)); err != nil {
		return err
	}
	select {
	case <-w.ended:
		return w.end
	case <-time.After(AnswerTimeout):
		return fmt.Errorf("no answer to Unregister within %v", AnswerTimeout)
	}
}

// Close ends the connection without a word, as a process that is killed does.
func (w *Worker) Close() {
	w.stopOnce.Do(func() { close(w.stop) })
	w.Socket.Close()
}

func (w *Worker) beat(interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
			if w.Socket.Send(PackHeartbeat()) != nil {
				return
			}
		}
	}
}

// SDK-go stops reading at the answer to Unregister; so does this.
func (w *Worker) read() {
	defer close(w.ended)
	defer close(w.Events)
	for {
		cmd, body, err := w.Socket.Receive(0)
		if err != nil {
			w.end = err
			return
		}
		if cmd == pb.Cmd_Unregister {
			return
		}
		event, err := decodeEvent(w.generation, cmd, body)
		if err != nil {
			w.end = err
			return
		}
		w.Events <- event
	}
}

func decodeEvent(generation int, cmd pb.Cmd, body []byte) (Event, error) {
	switch cmd {
	case pb.Cmd_ConnOpen:
		open, err := decodeOpen(generation, body)
		return Event{Open: open}, err
	case pb.Cmd_Transfer:
		message := &pb.Transfer{}
		err := proto.Unmarshal(body, message)
		return Event{Message: message}, err
	case pb.Cmd_ConnClose:
		message := &pb.ConnClose{}
		err := proto.Unmarshal(body, message)
		return Event{Close: message}, err
	default:
		return Event{}, fmt.Errorf("a frame of %v on a worker connection", cmd)
	}
}

func decodeOpen(generation int, body []byte) (*ConnOpen, error) {
	open := &ConnOpen{}
	if generation == 6 {
		message := &pb.ConnOpen{}
		if err := proto.Unmarshal(body, message); err != nil {
			return nil, err
		}
		*open = ConnOpen{
			UniqId: message.UniqId, RawQuery: message.RawQuery, RemoteAddr: message.RemoteAddr,
			XForwardedFor: message.XForwardedFor, XRealIp: message.XRealIp,
		}
		return open, nil
	}
	fields := map[protowire.Number]*string{
		1: &open.UniqId, 2: &open.RawQuery, 4: &open.XForwardedFor, 5: &open.XRealIp, 6: &open.RemoteAddr,
	}
	for len(body) > 0 {
		number, kind, n := protowire.ConsumeTag(body)
		if n < 0 || kind != protowire.BytesType {
			return nil, fmt.Errorf("ConnOpen of generation 5: bad field %d", number)
		}
		value, m := protowire.ConsumeString(body[n:])
		if m < 0 {
			return nil, protowire.ParseError(m)
		}
		body = body[n+m:]
		if number == 3 {
			open.SubProtocol = append(open.SubProtocol, value)
		} else if field := fields[number]; field != nil {
			*field = value
		} else {
			return nil, fmt.Errorf("ConnOpen of generation 5: field %d", number)
		}
	}
	return open, nil
}

// Prefix is what the SDKs expect at the start of each uniqId of the gateway at this address.
func Prefix(addr string) (string, error) {
	parsed, err := netip.ParseAddrPort(addr)
	if err != nil {
		return "", err
	}
	ip, port := parsed.Addr().As4(), parsed.Port()
	return hex.EncodeToString(append(ip[:], byte(port>>8), byte(port))), nil
}

// Package netsvr is a small client for the worker and task ports of a netsvr gateway, with the
// habits of the published Go and PHP SDKs (netsvr specification, section 10): one query at a time
// on a connection, whose answer is the next frame; a pool of task connections; heartbeats; events
// on a connection of their own. The messages are those of the published Go module of the protocol.
package netsvr

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"google.golang.org/protobuf/proto"
)

// HeartbeatText is the text of the example configuration, also Ringway's default.
const HeartbeatText = "~6YOt5rW35piO~"

// AnswerTimeout is how long a query waits, as the SDKs' demo configuration has it.
const AnswerTimeout = 10 * time.Second

// Socket is one TCP connection that carries frames: length, command, message.
type Socket struct {
	conn   net.Conn
	reader *bufio.Reader
	write  sync.Mutex
}

// Dial connects to a worker or task port.
func Dial(addr string) (*Socket, error) {
	conn, err := net.DialTimeout("tcp4", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &Socket{conn: conn, reader: bufio.NewReaderSize(conn, 65536)}, nil
}

// Pack makes a frame of a command; message may be nil.
func Pack(cmd pb.Cmd, message proto.Message) []byte {
	var body []byte
	if message != nil {
		var err error
		if body, err = proto.Marshal(message); err != nil {
			panic(fmt.Sprintf("%v does not encode: %v", cmd, err))
		}
	}
	return PackRaw(cmd, body)
}

// PackRaw makes a frame of a command and bytes that are a message already, or are not one at all.
func PackRaw(cmd pb.Cmd, body []byte) []byte {
	frame := make([]byte, 8, 8+len(body))
	binary.BigEndian.PutUint32(frame, uint32(4+len(body)))
	binary.BigEndian.PutUint32(frame[4:], uint32(cmd))
	return append(frame, body...)
}

// PackHeartbeat makes the only frame without a command.
func PackHeartbeat() []byte {
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(HeartbeatText)))
	return append(frame, HeartbeatText...)
}

// Send writes frames in one write.
func (s *Socket) Send(frames ...[]byte) error {
	s.write.Lock()
	defer s.write.Unlock()
	var all []byte
	for _, frame := range frames {
		all = append(all, frame...)
	}
	_, err := s.conn.Write(all)
	return err
}

// Receive reads the next frame; a timeout of zero waits for ever.
func (s *Socket) Receive(timeout time.Duration) (pb.Cmd, []byte, error) {
	deadline := time.Time{}
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return 0, nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(s.reader, head[:]); err != nil {
		return 0, nil, err
	}
	payload := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(s.reader, payload); err != nil {
		return 0, nil, err
	}
	if len(payload) < 4 {
		return 0, nil, fmt.Errorf("a frame of %d bytes: the SDKs cannot read those", len(payload))
	}
	return pb.Cmd(binary.BigEndian.Uint32(payload)), payload[4:], nil
}

// Answer reads the next frame, which must be the answer to a query of this command.
func (s *Socket) Answer(cmd pb.Cmd, response proto.Message) error {
	got, body, err := s.Receive(AnswerTimeout)
	if err != nil {
		return fmt.Errorf("answer to %v: %w", cmd, err)
	}
	if got != cmd {
		return fmt.Errorf("answer to %v is a frame of %v", cmd, got)
	}
	return proto.Unmarshal(body, response)
}

// Query sends a query and reads its answer.
func (s *Socket) Query(cmd pb.Cmd, request, response proto.Message) error {
	if err := s.Send(Pack(cmd, request)); err != nil {
		return err
	}
	return s.Answer(cmd, response)
}

// WaitClosed reads until the gateway closes the connection; a frame before that is an error.
func (s *Socket) WaitClosed(timeout time.Duration) error {
	cmd, _, err := s.Receive(timeout)
	if err == nil {
		return fmt.Errorf("a frame of %v instead of the end of the connection", cmd)
	}
	var timedOut net.Error
	if errors.As(err, &timedOut) && timedOut.Timeout() {
		return fmt.Errorf("the connection is still open after %v", timeout)
	}
	return nil
}

// Close ends the connection.
func (s *Socket) Close() { _ = s.conn.Close() }

package suite

import (
	"fmt"
	"net/http"
	"strings"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"github.com/gorilla/websocket"
	"ringway.test/clients/netsvr"
)

func (s *Suite) registration() {
	s.check("Register: no known event bit: InvalidEvent, then success on the same connection", func() {
		socket, err := netsvr.Dial(s.WorkerAddr)
		must(err)
		defer socket.Close()
		response := &pb.RegisterResp{}
		must(socket.Send(netsvr.RegisterRequest(s.Generation, 8)))
		must(socket.Answer(pb.Cmd_Register, response))
		equal("code", response.Code, pb.RegisterRespCode_InvalidEvent)
		equal("message", response.Message, "InvalidEvent")
		equal("connId", response.ConnId, "")
		must(socket.Send(netsvr.RegisterRequest(s.Generation, netsvr.OnClose)))
		must(socket.Answer(pb.Cmd_Register, response))
		equal("code", response.Code, pb.RegisterRespCode_Success)
		must(socket.Send(netsvr.RegisterRequest(s.Generation, netsvr.OnClose)))
		must(socket.Answer(pb.Cmd_Register, response))
		equal("second code", response.Code, pb.RegisterRespCode_DuplicateRegister)
		equal("second message", response.Message, "DuplicateRegister")
	})
	s.check("Register: bytes that are no message: UnmarshalError", func() {
		socket, err := netsvr.Dial(s.WorkerAddr)
		must(err)
		defer socket.Close()
		response := &pb.RegisterResp{}
		must(socket.Send(netsvr.PackRaw(pb.Cmd_Register, []byte{0xff})))
		must(socket.Answer(pb.Cmd_Register, response))
		equal("code", response.Code, pb.RegisterRespCode_UnmarshalError)
	})
	s.check("Register: success with a connId of 32 hex characters", func() {
		worker, err := netsvr.Register(s.WorkerAddr, s.Generation, netsvr.AllEvents)
		must(err)
		equal("length of "+worker.ConnId, len(worker.ConnId), 32)
		s.worker = worker
		if s.Generation == 5 {
			s.bus = netsvr.NewBus(s.WorkerAddr, 1, worker.Socket)
		} else {
			s.bus = netsvr.NewBus(s.TaskAddr, 1, nil)
		}
	})
	s.check("unknown command and oversized frame: the connection is closed", func() {
		for _, frame := range [][]byte{
			netsvr.PackRaw(900009999, nil), netsvr.PackRaw(pb.Cmd_Transfer, nil),
			{0, 0, 0, 2, 1, 2}, {0x7f, 0xff, 0xff, 0xff, 0x35, 0xa4, 0xf0, 0xd6},
		} {
			socket, err := netsvr.Dial(s.TaskAddr)
			must(err)
			must(socket.Send(frame))
			must(socket.WaitClosed(patience))
			socket.Close()
		}
	})
	s.check("heartbeats are not answered", func() {
		socket, err := netsvr.Dial(s.TaskAddr)
		must(err)
		defer socket.Close()
		must(socket.Send(netsvr.PackHeartbeat(), netsvr.PackHeartbeat()))
		must(socket.Query(pb.Cmd_TopicCount, nil, &pb.TopicCountResp{}))
	})
}

func (s *Suite) events() {
	s.check("ConnOpen: uniqId, query, proxy headers, peer address", func() {
		header := http.Header{}
		header.Add("X-Forwarded-For", "1.2.3.4, 5.6.7.8")
		header.Add("X-Real-Ip", "9.9.9.9")
		c := s.openWith(websocket.Dialer{}, header)
		defer s.closeAll(c)
		addr := s.TaskAddr
		if s.Generation == 5 {
			addr = s.WorkerAddr
		}
		prefix, err := netsvr.Prefix(addr)
		must(err)
		equal("length of uniqId", len(c.UniqId), 28)
		equal("uniqId prefix", c.UniqId[:12], prefix)
		equal("uniqId", c.UniqId, strings.ToLower(c.UniqId))
		equal("xForwardedFor", c.Open.XForwardedFor, "1.2.3.4, 5.6.7.8")
		equal("xRealIp", c.Open.XRealIp, "9.9.9.9")
		equal("remoteAddr", c.Open.RemoteAddr, "127.0.0.1")
	})
	s.check("sub-protocol: the first offered one is chosen, generation 5 reports all", func() {
		c := s.openWith(websocket.Dialer{Subprotocols: []string{"chat", "json"}}, nil)
		defer s.closeAll(c)
		equal("chosen", c.conn.Subprotocol(), "chat")
		if s.Generation == 5 {
			equal("subProtocol", c.Open.SubProtocol, []string{"chat", "json"})
		}
	})
	s.check("Transfer: text, binary, empty; the heartbeat text stays at the gateway", func() {
		c := s.open()
		defer s.closeAll(c)
		c.send("hello")
		must(c.conn.WriteMessage(websocket.BinaryMessage, []byte{0, 0xff, 0x80}))
		c.send(netsvr.HeartbeatText)
		c.send("")
		c.send("after")
		for _, want := range []string{"hello", "\x00\xff\x80", "", "after"} {
			equal("data", string(s.awaitMessage(c).Data), want)
		}
	})
	s.check("Transfer: 900 messages in order, ConnClose after the last", func() {
		c := s.open()
		for i := range 900 {
			c.send(fmt.Sprint(i))
		}
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		must(c.conn.WriteMessage(websocket.CloseMessage, bye))
		c.expectClose(websocket.CloseNormalClosure, "")
		for i := range 900 {
			event := s.await("event of "+c.UniqId, func(e netsvr.Event) bool {
				return e.UniqId() == c.UniqId
			})
			if event.Message == nil || string(event.Message.Data) != fmt.Sprint(i) {
				fail("expected message %d, got %v", i, event)
			}
		}
		s.awaitClose(c)
	})
	s.check("a message that is larger than the limit: 1009", func() {
		c := s.open()
		must(c.conn.WriteMessage(websocket.BinaryMessage, make([]byte, 2<<20)))
		equal("bytes at the limit", len(s.awaitMessage(c).Data), 2<<20)
		// The gateway may close before the last byte is written; only the close frame matters.
		_ = c.conn.WriteMessage(websocket.BinaryMessage, make([]byte, 2<<20+1))
		c.expectClose(websocket.CloseMessageTooBig, "message too big")
		s.awaitClose(c)
	})
	s.check("permessage-deflate in both directions", func() {
		c := s.openWith(websocket.Dialer{EnableCompression: true}, nil)
		defer s.closeAll(c)
		text := strings.Repeat("compress me ", 500)
		c.send(text)
		equal("data", string(s.awaitMessage(c).Data), text)
		s.send(pb.Cmd_SingleCast, &pb.SingleCast{UniqId: c.UniqId, Data: []byte(text)})
		c.expect(text)
	})
}

package suite

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"github.com/gorilla/websocket"
	"ringway.test/clients/netsvr"
)

// Client is one WebSocket connection whose uniqId is known from its ConnOpen.
type Client struct {
	UniqId string
	Open   *netsvr.ConnOpen

	suite    *Suite
	conn     *websocket.Conn
	messages chan incoming
}

type incoming struct {
	data []byte
	err  error
}

// open connects a client and finds its ConnOpen by the query string.
func (s *Suite) open() *Client {
	return s.openWith(websocket.Dialer{}, nil)
}

func (s *Suite) openWith(dialer websocket.Dialer, header http.Header) *Client {
	s.serial++
	rawQuery := fmt.Sprintf("client=%d", s.serial)
	conn, response, err := dialer.Dial(s.URL+"?"+rawQuery, header)
	if err != nil {
		if response != nil {
			fail("upgrade refused: %v, %s", err, response.Status)
		}
		fail("connect: %v", err)
	}
	c := &Client{suite: s, conn: conn, messages: make(chan incoming, 100_000)}
	go c.read()
	c.Open = s.await("ConnOpen with "+rawQuery, func(e netsvr.Event) bool {
		return e.Open != nil && e.Open.RawQuery == rawQuery
	}).Open
	c.UniqId = c.Open.UniqId
	return c
}

func (s *Suite) openMany(n int) []*Client {
	clients := make([]*Client, n)
	for i := range clients {
		clients[i] = s.open()
	}
	return clients
}

func (c *Client) read() {
	for {
		_, data, err := c.conn.ReadMessage()
		c.messages <- incoming{data, err}
		if err != nil {
			return
		}
	}
}

func (c *Client) next() incoming {
	select {
	case message := <-c.messages:
		return message
	case <-time.After(patience):
		fail("client %s: nothing received within %v", c.UniqId, patience)
		return incoming{}
	}
}

// send writes one text message.
func (c *Client) send(text string) {
	must(c.conn.WriteMessage(websocket.TextMessage, []byte(text)))
}

// expect reads exactly these messages.
func (c *Client) expect(texts ...string) {
	for _, text := range texts {
		message := c.next()
		if message.err != nil {
			fail("client %s: expected %q, got %v", c.UniqId, text, message.err)
		}
		if string(message.data) != text {
			fail("client %s: expected %q, got %q", c.UniqId, text, message.data)
		}
	}
}

// expectClose reads a close frame and answers it, as gorilla does by itself.
func (c *Client) expectClose(code int, reason string) {
	message := c.next()
	var closed *websocket.CloseError
	if !errors.As(message.err, &closed) {
		fail("client %s: expected close %d %q, got %q, %v",
			c.UniqId, code, reason, message.data, message.err)
	}
	if closed.Code != code || closed.Text != reason {
		fail("client %s: expected close %d %q, got %d %q",
			c.UniqId, code, reason, closed.Code, closed.Text)
	}
	_ = c.conn.Close()
}

// close says goodbye and waits until the business process knows.
func (c *Client) close() *pb.ConnClose {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "bye")
	must(c.conn.WriteMessage(websocket.CloseMessage, bye))
	c.expectClose(websocket.CloseNormalClosure, "bye")
	return c.suite.awaitClose(c)
}

// settle proves that each client got nothing but what was already read, and that all commands sent
// before took effect for it: a marker sent last on the same way must be the next thing to arrive.
func (s *Suite) settle(clients ...*Client) {
	for _, c := range clients {
		s.fence++
		marker := fmt.Sprintf("marker %d", s.fence)
		s.send(pb.Cmd_SingleCast, &pb.SingleCast{UniqId: c.UniqId, Data: []byte(marker)})
		c.expect(marker)
	}
}

// closeAll ends clients that a group of checks used.
func (s *Suite) closeAll(clients ...*Client) {
	for _, c := range clients {
		c.close()
	}
}

func ids(clients ...*Client) []string {
	list := make([]string, len(clients))
	for i, c := range clients {
		list[i] = c.UniqId
	}
	return list
}

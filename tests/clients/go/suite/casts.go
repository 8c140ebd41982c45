package suite

import (
	"fmt"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
)

// nobody has the right length and no connection.
const nobody = "000000000000000000000000000a"

func bytes(texts ...string) [][]byte {
	list := make([][]byte, len(texts))
	for i, text := range texts {
		list[i] = []byte(text)
	}
	return list
}

// bind gives a client a customerId and waits until that holds.
func (s *Suite) bind(c *Client, customerId string) {
	s.send(pb.Cmd_ConnInfoUpdate, &pb.ConnInfoUpdate{
		UniqId: c.UniqId, NewCustomerId: customerId, Data: []byte("bound"),
	})
	c.expect("bound")
}

func (s *Suite) casts() {
	three := s.openMany(3)
	a, b, c := three[0], three[1], three[2]
	s.bind(a, "ann")
	s.bind(b, "bob")
	s.bind(c, "ann")
	defer s.closeAll(three...)
	s.check("SingleCast: one message to one client; empty data sends nothing", func() {
		s.send(pb.Cmd_SingleCast, &pb.SingleCast{UniqId: a.UniqId, Data: []byte("hi")})
		s.send(pb.Cmd_SingleCast, &pb.SingleCast{UniqId: a.UniqId})
		s.send(pb.Cmd_SingleCast, &pb.SingleCast{UniqId: nobody, Data: []byte("hi")})
		a.expect("hi")
		s.settle(three...)
	})
	s.check("Multicast: once per element of the list, unknown ids skipped", func() {
		s.send(pb.Cmd_Multicast, &pb.Multicast{
			UniqIds: []string{a.UniqId, nobody, "", b.UniqId, a.UniqId}, Data: []byte("m"),
		})
		a.expect("m", "m")
		b.expect("m")
		s.settle(three...)
	})
	s.check("Broadcast: everybody", func() {
		s.send(pb.Cmd_Broadcast, &pb.Broadcast{Data: []byte("all")})
		for _, client := range three {
			client.expect("all")
		}
		s.send(pb.Cmd_Broadcast, &pb.Broadcast{})
		s.settle(three...)
	})
	s.check("SingleCastByCustomerId: every connection of the customer", func() {
		s.send(pb.Cmd_SingleCastByCustomerId, &pb.SingleCastByCustomerId{
			CustomerId: "ann", Data: []byte("to ann"),
		})
		s.send(pb.Cmd_SingleCastByCustomerId, &pb.SingleCastByCustomerId{Data: []byte("x")})
		a.expect("to ann")
		c.expect("to ann")
		s.settle(three...)
	})
	s.check("MulticastByCustomerId: a customer that is listed twice gets it once", func() {
		s.send(pb.Cmd_MulticastByCustomerId, &pb.MulticastByCustomerId{
			CustomerIds: []string{"ann", "bob", "ann", "zoe"}, Data: []byte("mc"),
		})
		for _, client := range three {
			client.expect("mc")
		}
		s.settle(three...)
	})
	s.check("a payload of 1 MiB arrives in one message", func() {
		data := make([]byte, 1<<20)
		for i := range data {
			data[i] = 'a' + byte(i%26)
		}
		s.send(pb.Cmd_SingleCast, &pb.SingleCast{UniqId: a.UniqId, Data: data})
		a.expect(string(data))
		s.settle(a)
	})
}

func (s *Suite) bulkCasts() {
	three := s.openMany(3)
	a, b, c := three[0], three[1], three[2]
	s.bind(a, "ann")
	s.bind(b, "bob")
	s.bind(c, "ann")
	defer s.closeAll(three...)
	s.check("SingleCastBulk: several messages to one client, empty ones skipped", func() {
		s.send(pb.Cmd_SingleCastBulk, &pb.SingleCastBulk{
			UniqIds: ids(a), Data: bytes("a", "", "bb"),
		})
		a.expect("a", "bb")
		s.settle(three...)
	})
	s.check("SingleCastBulk: message i to client i; other counts are dropped", func() {
		s.send(pb.Cmd_SingleCastBulk, &pb.SingleCastBulk{
			UniqIds: ids(a, b, a), Data: bytes("1", "2", "3"),
		})
		s.send(pb.Cmd_SingleCastBulk, &pb.SingleCastBulk{
			UniqIds: ids(a, b), Data: bytes("x", "y", "z"),
		})
		s.send(pb.Cmd_SingleCastBulk, &pb.SingleCastBulk{UniqIds: ids(a, b), Data: bytes("x")})
		s.send(pb.Cmd_SingleCastBulk, &pb.SingleCastBulk{UniqIds: ids(a)})
		a.expect("1", "3")
		b.expect("2")
		s.settle(three...)
	})
	s.check("SingleCastBulkByCustomerId: both forms", func() {
		s.send(pb.Cmd_SingleCastBulkByCustomerId, &pb.SingleCastBulkByCustomerId{
			CustomerIds: []string{"ann"}, Data: bytes("x", "", "y"),
		})
		s.send(pb.Cmd_SingleCastBulkByCustomerId, &pb.SingleCastBulkByCustomerId{
			CustomerIds: []string{"bob", "ann"}, Data: bytes("for bob", "for ann"),
		})
		s.send(pb.Cmd_SingleCastBulkByCustomerId, &pb.SingleCastBulkByCustomerId{
			CustomerIds: []string{"bob", "ann"}, Data: bytes("1", "2", "3"),
		})
		a.expect("x", "y", "for ann")
		c.expect("x", "y", "for ann")
		b.expect("for bob")
		s.settle(three...)
	})
}

func (s *Suite) order() {
	s.check("5000 pipelined SingleCasts on one connection arrive in order", func() {
		c := s.open()
		defer s.closeAll(c)
		for i := range 5000 {
			s.send(pb.Cmd_SingleCast, &pb.SingleCast{
				UniqId: c.UniqId, Data: []byte(fmt.Sprint(i)),
			})
		}
		for i := range 5000 {
			c.expect(fmt.Sprint(i))
		}
	})
	s.check("SingleCast, then ForceOffline: the message arrives, 100 times of 100", func() {
		for range 100 {
			c := s.open()
			s.send(pb.Cmd_SingleCast, &pb.SingleCast{UniqId: c.UniqId, Data: []byte("last")})
			s.send(pb.Cmd_ForceOffline, &pb.ForceOffline{UniqIds: ids(c)})
			c.expect("last")
			c.expectClose(1008, "forceOffline")
			s.awaitClose(c)
		}
	})
}

package suite

import (
	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"ringway.test/clients/netsvr"
)

// connInfo asks for everything that the gateway knows about one client.
func (s *Suite) connInfo(c *Client) *pb.ConnInfoRespItem {
	request := &pb.ConnInfoReq{
		UniqIds: ids(c), ReqSession: true, ReqCustomerId: true, ReqTopic: true,
	}
	response := query(s, pb.Cmd_ConnInfo, request, &pb.ConnInfoResp{})
	item := response.Items[c.UniqId]
	if item == nil {
		fail("ConnInfo does not know %s", c.UniqId)
	}
	return item
}

func (s *Suite) connectionInfo() {
	c := s.open()
	s.check("ConnInfoUpdate: session, customer, topics, then the data", func() {
		s.send(pb.Cmd_ConnInfoUpdate, &pb.ConnInfoUpdate{
			UniqId: c.UniqId, NewSession: "session 1", NewCustomerId: "42",
			NewTopics: []string{"room", "news", "room", ""}, Data: []byte("ok"),
		})
		c.expect("ok")
		item := s.connInfo(c)
		equal("session", item.Session, "session 1")
		equal("customerId", item.CustomerId, "42")
		sameSet("topics", item.Topics, "news", "room")
	})
	s.check("Transfer repeats session, customer and topics", func() {
		c.send("who am I")
		message := s.awaitMessage(c)
		equal("session", message.Session, "session 1")
		equal("customerId", message.CustomerId, "42")
		sameSet("topics", message.Topics, "news", "room")
	})
	s.check("ConnInfoUpdate: empty fields keep the old values, [\"\"] clears the topics", func() {
		s.send(pb.Cmd_ConnInfoUpdate, &pb.ConnInfoUpdate{
			UniqId: c.UniqId, NewTopics: []string{"other"},
		})
		s.settle(c)
		item := s.connInfo(c)
		equal("session", item.Session, "session 1")
		sameSet("topics", item.Topics, "other")
		s.send(pb.Cmd_ConnInfoUpdate, &pb.ConnInfoUpdate{
			UniqId: c.UniqId, NewCustomerId: "43", NewTopics: []string{""},
		})
		s.settle(c)
		item = s.connInfo(c)
		equal("customerId", item.CustomerId, "43")
		sameSet("topics", item.Topics)
		list := query(s, pb.Cmd_CustomerIdList, nil, &pb.CustomerIdListResp{})
		sameSet("customers", list.CustomerIds, "43")
	})
	s.check("ConnInfoDelete: only what is asked, then the data", func() {
		s.send(pb.Cmd_TopicSubscribe, &pb.TopicSubscribe{UniqId: c.UniqId, Topics: []string{"t"}})
		s.send(pb.Cmd_ConnInfoDelete, &pb.ConnInfoDelete{
			UniqId: c.UniqId, DelSession: true, DelTopic: true, Data: []byte("gone"),
		})
		c.expect("gone")
		item := s.connInfo(c)
		equal("session", item.Session, "")
		equal("customerId", item.CustomerId, "43")
		sameSet("topics", item.Topics)
	})
	s.check("ConnClose carries customer, session and topics", func() {
		s.send(pb.Cmd_ConnInfoUpdate, &pb.ConnInfoUpdate{
			UniqId: c.UniqId, NewSession: "last", NewTopics: []string{"x"},
		})
		s.settle(c)
		closed := c.close()
		equal("customerId", closed.CustomerId, "43")
		equal("session", closed.Session, "last")
		sameSet("topics", closed.Topics, "x")
	})
	s.check("effects are visible to a query behind the command on the same connection", func() {
		c := s.open()
		defer s.closeAll(c)
		socket, err := netsvr.Dial(s.TaskAddr)
		must(err)
		defer socket.Close()
		for range 200 {
			update := &pb.ConnInfoUpdate{UniqId: c.UniqId, NewCustomerId: "seen"}
			remove := &pb.ConnInfoDelete{UniqId: c.UniqId, DelCustomerId: true}
			must(socket.Send(
				netsvr.Pack(pb.Cmd_ConnInfoUpdate, update),
				netsvr.Pack(pb.Cmd_CustomerIdCount, nil),
				netsvr.Pack(pb.Cmd_ConnInfoDelete, remove),
				netsvr.Pack(pb.Cmd_CustomerIdCount, nil),
			))
			for _, want := range []int32{1, 0} {
				count := &pb.CustomerIdCountResp{}
				must(socket.Answer(pb.Cmd_CustomerIdCount, count))
				equal("customers", count.Count, want)
			}
		}
	})
}

func (s *Suite) topics() {
	three := s.openMany(3)
	a, b, c := three[0], three[1], three[2]
	defer s.closeAll(three...)
	subscribe := func(client *Client, topics ...string) {
		s.send(pb.Cmd_TopicSubscribe, &pb.TopicSubscribe{
			UniqId: client.UniqId, Topics: topics, Data: []byte("subscribed"),
		})
		client.expect("subscribed")
	}
	s.check("TopicSubscribe: data after it; an empty list does nothing at all", func() {
		subscribe(a, "room", "news", "room")
		subscribe(b, "room")
		s.send(pb.Cmd_TopicSubscribe, &pb.TopicSubscribe{UniqId: c.UniqId, Data: []byte("no")})
		s.settle(three...)
		sameSet("topics of a", s.connInfo(a).Topics, "news", "room")
	})
	s.check("TopicPublish: one message per topic and subscriber", func() {
		s.send(pb.Cmd_TopicPublish, &pb.TopicPublish{
			Topics: []string{"room", "news", "nothing", "room"}, Data: []byte("p"),
		})
		a.expect("p", "p", "p")
		b.expect("p", "p")
		s.settle(three...)
	})
	s.check("TopicPublishBulk: both forms; one empty among several is sent by generation 6", func() {
		s.send(pb.Cmd_TopicPublishBulk, &pb.TopicPublishBulk{
			Topics: []string{"room"}, Data: bytes("1", "", "2"),
		})
		s.send(pb.Cmd_TopicPublishBulk, &pb.TopicPublishBulk{
			Topics: []string{"room", "news"}, Data: bytes("r", "n"),
		})
		s.send(pb.Cmd_TopicPublishBulk, &pb.TopicPublishBulk{
			Topics: []string{"room", "news"}, Data: bytes("x"),
		})
		several := []string{"1", "", "2"}
		if s.Generation == 5 {
			several = []string{"1", "2"}
		}
		a.expect(append(several, "r", "n")...)
		b.expect(append(several, "r")...)
		s.settle(three...)
	})
	s.check("TopicUnsubscribe: no more messages of that topic", func() {
		s.send(pb.Cmd_TopicUnsubscribe, &pb.TopicUnsubscribe{
			UniqId: b.UniqId, Topics: []string{"room", "unknown"}, Data: []byte("left"),
		})
		b.expect("left")
		s.send(pb.Cmd_TopicPublish, &pb.TopicPublish{
			Topics: []string{"room"}, Data: []byte("without b"),
		})
		a.expect("without b")
		s.settle(three...)
	})
	s.check("TopicDelete: each connection that lost a topic is told once", func() {
		subscribe(c, "room")
		s.send(pb.Cmd_TopicDelete, &pb.TopicDelete{
			Topics: []string{"room", "news"}, Data: []byte("deleted"),
		})
		a.expect("deleted")
		c.expect("deleted")
		s.settle(three...)
		count := query(s, pb.Cmd_TopicCount, nil, &pb.TopicCountResp{})
		equal("topics", count.Count, int32(0))
	})
}

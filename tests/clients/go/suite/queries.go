package suite

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"ringway.test/clients/netsvr"
)

func (s *Suite) queries() {
	three := s.openMany(3)
	a, b, c := three[0], three[1], three[2]
	s.bind(a, "ann")
	s.bind(b, "bob")
	s.bind(c, "ann")
	defer s.closeAll(three...)
	s.check("CheckOnline: in request order, duplicates repeated, unknown ids left out", func() {
		request := &pb.CheckOnlineReq{UniqIds: []string{c.UniqId, nobody, a.UniqId, c.UniqId}}
		response := query(s, pb.Cmd_CheckOnline, request, &pb.CheckOnlineResp{})
		equal("uniqIds", response.UniqIds, ids(c, a, c))
	})
	s.check("UniqIdList and UniqIdCount", func() {
		list := query(s, pb.Cmd_UniqIdList, nil, &pb.UniqIdListResp{})
		sameSet("uniqIds", list.UniqIds, ids(three...)...)
		count := query(s, pb.Cmd_UniqIdCount, nil, &pb.UniqIdCountResp{})
		equal("count", count.Count, int32(3))
	})
	s.check("CustomerIdList and CustomerIdCount", func() {
		list := query(s, pb.Cmd_CustomerIdList, nil, &pb.CustomerIdListResp{})
		sameSet("customers", list.CustomerIds, "ann", "bob")
		count := query(s, pb.Cmd_CustomerIdCount, nil, &pb.CustomerIdCountResp{})
		equal("count", count.Count, int32(2))
	})
	s.check("ConnInfo: only what is asked; unknown ids left out", func() {
		request := &pb.ConnInfoReq{UniqIds: append(ids(a, b), nobody), ReqCustomerId: true}
		response := query(s, pb.Cmd_ConnInfo, request, &pb.ConnInfoResp{})
		sameSet("keys", slices.Collect(maps.Keys(response.Items)), ids(a, b)...)
		equal("customer of b", response.Items[b.UniqId].CustomerId, "bob")
		request.ReqCustomerId = false
		response = query(s, pb.Cmd_ConnInfo, request, &pb.ConnInfoResp{})
		equal("customer that was not asked for", response.Items[b.UniqId].CustomerId, "")
	})
	s.check("ConnInfoByCustomerId: one item per connection", func() {
		request := &pb.ConnInfoByCustomerIdReq{
			CustomerIds: []string{"ann", "zoe"}, ReqUniqId: true,
		}
		response := query(s, pb.Cmd_ConnInfoByCustomerId, request, &pb.ConnInfoByCustomerIdResp{})
		equal("customers", len(response.Items), 1)
		var found []string
		for _, item := range response.Items["ann"].Items {
			found = append(found, item.UniqId)
		}
		sameSet("connections of ann", found, ids(a, c)...)
	})
	s.check("200 pipelined queries: one answer each, in order", func() { s.pipelined(three) })
	s.check("64 tasks share a pool of 8 connections", func() { s.pool(three) })
	s.check("a query that does not decode gets the empty answer", func() {
		socket, err := netsvr.Dial(s.TaskAddr)
		must(err)
		defer socket.Close()
		must(socket.Send(netsvr.PackRaw(pb.Cmd_CheckOnline, []byte{0xff})))
		response := &pb.CheckOnlineResp{}
		must(socket.Answer(pb.Cmd_CheckOnline, response))
		equal("uniqIds", len(response.UniqIds), 0)
		must(socket.Query(pb.Cmd_UniqIdCount, nil, &pb.UniqIdCountResp{}))
	})
}

func (s *Suite) pipelined(clients []*Client) {
	socket, err := netsvr.Dial(s.TaskAddr)
	must(err)
	defer socket.Close()
	var frames [][]byte
	for i := range 100 {
		who := clients[i%len(clients)]
		frames = append(frames,
			netsvr.Pack(pb.Cmd_CheckOnline, &pb.CheckOnlineReq{UniqIds: ids(who)}),
			netsvr.Pack(pb.Cmd_UniqIdCount, nil))
	}
	must(socket.Send(frames...))
	for i := range 100 {
		online, count := &pb.CheckOnlineResp{}, &pb.UniqIdCountResp{}
		must(socket.Answer(pb.Cmd_CheckOnline, online))
		equal("uniqIds", online.UniqIds, ids(clients[i%len(clients)]))
		must(socket.Answer(pb.Cmd_UniqIdCount, count))
		equal("count", count.Count, int32(len(clients)))
	}
}

func (s *Suite) pool(clients []*Client) {
	bus := netsvr.NewBus(s.TaskAddr, 8, nil)
	defer bus.Close()
	var tasks sync.WaitGroup
	problems := make(chan error, 64)
	for i := range 64 {
		tasks.Add(1)
		go func() {
			defer tasks.Done()
			want := clients[i%len(clients)].UniqId
			for range 50 {
				online := &pb.CheckOnlineResp{}
				request := &pb.CheckOnlineReq{UniqIds: []string{want}}
				err := bus.Query(pb.Cmd_CheckOnline, request, online)
				if err == nil && !slices.Equal(online.UniqIds, []string{want}) {
					err = fmt.Errorf("asked for %s, got %v", want, online.UniqIds)
				}
				if err != nil {
					problems <- err
					return
				}
			}
		}()
	}
	tasks.Wait()
	close(problems)
	must(<-problems)
	must(bus.Heartbeat())
	must(bus.Query(pb.Cmd_UniqIdCount, nil, &pb.UniqIdCountResp{}))
}

func (s *Suite) topicQueries() {
	three := s.openMany(3)
	a, b, c := three[0], three[1], three[2]
	defer s.closeAll(three...)
	s.bind(a, "ann")
	s.bind(b, "bob")
	s.bind(c, "ann")
	for _, step := range []struct {
		client *Client
		topics []string
	}{{a, []string{"x", "y"}}, {b, []string{"x"}}} {
		s.send(pb.Cmd_TopicSubscribe, &pb.TopicSubscribe{
			UniqId: step.client.UniqId, Topics: step.topics, Data: []byte("subscribed"),
		})
		step.client.expect("subscribed")
	}
	asked := []string{"x", "unknown", ""}
	s.check("TopicList and TopicCount", func() {
		list := query(s, pb.Cmd_TopicList, nil, &pb.TopicListResp{})
		sameSet("topics", list.Topics, "x", "y")
		count := query(s, pb.Cmd_TopicCount, nil, &pb.TopicCountResp{})
		equal("count", count.Count, int32(2))
	})
	s.check("TopicUniqIdList: existing topics only", func() {
		request := &pb.TopicUniqIdListReq{Topics: asked}
		response := query(s, pb.Cmd_TopicUniqIdList, request, &pb.TopicUniqIdListResp{})
		equal("topics", len(response.Items), 1)
		sameSet("members of x", response.Items["x"].UniqIds, ids(a, b)...)
	})
	s.check("TopicUniqIdCount: listed topics, or all", func() {
		request := &pb.TopicUniqIdCountReq{Topics: asked}
		response := query(s, pb.Cmd_TopicUniqIdCount, request, &pb.TopicUniqIdCountResp{})
		equal("items", response.Items, map[string]int32{"x": 2})
		request.CountAll = true
		response = query(s, pb.Cmd_TopicUniqIdCount, request, &pb.TopicUniqIdCountResp{})
		equal("items", response.Items, map[string]int32{"x": 2, "y": 1})
	})
	s.check("TopicCustomerIdList and TopicCustomerIdCount", func() {
		request := &pb.TopicCustomerIdListReq{Topics: asked}
		list := query(s, pb.Cmd_TopicCustomerIdList, request, &pb.TopicCustomerIdListResp{})
		equal("topics", len(list.Items), 1)
		sameSet("customers of x", list.Items["x"].CustomerIds, "ann", "bob")
		countRequest := &pb.TopicCustomerIdCountReq{CountAll: true}
		count := query(s, pb.Cmd_TopicCustomerIdCount, countRequest, &pb.TopicCustomerIdCountResp{})
		equal("items", count.Items, map[string]int32{"x": 2, "y": 1})
	})
	s.check("TopicCustomerIdToUniqIdsList: as the generation has it", func() {
		request := &pb.TopicCustomerIdToUniqIdsListReq{Topics: asked}
		response := query(s, pb.Cmd_TopicCustomerIdToUniqIdsList, request,
			&pb.TopicCustomerIdToUniqIdsListResp{})
		equal("topics", len(response.Items), 1)
		items := response.Items["x"].Items
		equal("customers", len(items), 2)
		sameSet("connections of bob", items["bob"].UniqIds, b.UniqId)
		if s.Generation == 5 {
			sameSet("subscribed connections of ann", items["ann"].UniqIds, a.UniqId)
		} else {
			sameSet("all connections of ann", items["ann"].UniqIds, ids(a, c)...)
		}
	})
	s.check("a topic whose members have no customer has a count of 0", func() {
		s.send(pb.Cmd_ConnInfoDelete, &pb.ConnInfoDelete{UniqId: a.UniqId, DelCustomerId: true})
		s.settle(a)
		request := &pb.TopicCustomerIdCountReq{Topics: []string{"y"}}
		count := query(s, pb.Cmd_TopicCustomerIdCount, request, &pb.TopicCustomerIdCountResp{})
		equal("items", count.Items, map[string]int32{"y": 0})
	})
}

func (s *Suite) metricsAndLimit() {
	s.check("Metrics: the 13 items, opens and closes counted", func() {
		s.closeAll(s.openMany(2)...)
		response := query(s, pb.Cmd_Metrics, nil, &pb.MetricsResp{})
		equal("number of items", len(response.Items), 13)
		for id, item := range response.Items {
			equal("item", item.Item, id)
		}
		opened, closed := response.Items[1].Count, response.Items[2].Count
		if opened < 2 || opened != closed {
			fail("opened %d, closed %d: expected the same number", opened, closed)
		}
		if response.Items[4].Count < opened || response.Items[5].Count == 0 {
			fail("frames to workers %d, bytes %d", response.Items[4].Count, response.Items[5].Count)
		}
	})
	s.check("Limit: a value above 0 is set, others stay", func() {
		response := query(s, pb.Cmd_Limit, &pb.LimitReq{OnMessage: 40_000}, &pb.LimitResp{})
		equal("onMessage", response.OnMessage, int32(40_000))
		onOpen := response.OnOpen
		response = query(s, pb.Cmd_Limit, &pb.LimitReq{OnOpen: onOpen + 1}, &pb.LimitResp{})
		equal("onOpen", response.OnOpen, onOpen+1)
		equal("onMessage", response.OnMessage, int32(40_000))
		response = query(s, pb.Cmd_Limit, &pb.LimitReq{OnOpen: -1}, &pb.LimitResp{})
		equal("onOpen", response.OnOpen, onOpen+1)
	})
}

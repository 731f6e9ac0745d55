//! The client's state machine (RFC 2131 4.4): frames and the time in, frames and events out.
//!
//! | state | waits for | then |
//! |---|---|---|
//! | Selecting (also INIT) | an offer; DISCOVER again after 1, 2, 4, 8, 16, 16 ... s | Requesting |
//! | Requesting | the acknowledgement; REQUEST again after 1, 2 s, 4 s more: the server is gone | Bound, Selecting |
//! | Bound | T1 (RENEWING): asks its server; T2 (REBINDING): asks everybody; the end: told | Bound, Selecting |

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use log::{debug, warn};
use smoltcp::wire::DhcpMessageType;

use super::Lease;
use super::frame::{self, BROADCAST, Mac, Path};
use super::message::{self, Query, Rejected, Reply};
use crate::protocol::FromDhcp;

/// Transmissions of a REQUEST: a server that made an offer and is silent for 7 s is gone; another may be there.
const REQUESTS: u32 = 3;
/// Shortest time between two REQUESTs for a renewal (RFC 2131 4.4.5).
const RENEW_GAP: Duration = Duration::from_secs(60);

/// What the role has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this Ethernet frame.
    Send(Vec<u8>),
    /// Tell the agent.
    Tell(FromDhcp),
}

/// A DHCP client for one interface.
#[derive(Debug)]
pub struct Client {
    mac: Mac,
    hostname: Option<String>,
    random: u64,
    state: State,
    /// Number of the transaction.
    xid: u32,
    /// When it began.
    began: Instant,
    /// When its last message was sent; a lease counts from there (RFC 2131 4.4.1).
    sent: Instant,
    /// Messages sent in this state.
    tries: u32,
    /// Refusals since the last lease.
    refusals: u32,
    due: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Selecting,
    Requesting(Lease),
    Bound(Held),
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// Who sent the acknowledgement: the server, or the relay that leads to it. Spares this role ARP.
    via: Mac,
    /// T1, T2 and the end.
    times: Option<[Instant; 3]>,
}

impl Client {
    /// A client that has yet to send its first message; `seed` is any random number.
    pub fn new(mac: Mac, hostname: Option<&str>, seed: u64, now: Instant) -> Self {
        let hostname = hostname.map(str::to_owned);
        // xorshift stays at 0 for ever.
        let random = seed.max(1);
        let state = State::Selecting;
        let mut client =
            Self { mac, hostname, random, state, xid: 0, began: now, sent: now, tries: 0, refusals: 0, due: Some(now) };
        client.begin(now);
        client
    }

    /// When [`Client::tick`] wants to be called next; `None` if only a frame can bring news.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What the time demands.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        match &self.state {
            State::Selecting => self.ask(now, DhcpMessageType::Discover, None, None),
            State::Requesting(_) if self.tries >= REQUESTS => {
                self.restart(now);
                self.tick(now)
            }
            State::Requesting(offer) => {
                let chosen = (offer.address, offer.server);
                self.ask(now, DhcpMessageType::Request, Some(chosen), None)
            }
            State::Bound(Held { times: Some([.., end]), .. }) if now >= *end => {
                self.restart(now);
                let mut actions = vec![Action::Tell(FromDhcp::Expired)];
                actions.extend(self.tick(now));
                actions
            }
            State::Bound(held) => {
                let (Some([t1, t2, end]), address) = (held.times, held.lease.address) else { return Vec::new() };
                let everybody = (BROADCAST, Ipv4Addr::BROADCAST);
                let (limit, to) = if now < t2 { (t2, (held.via, held.lease.server)) } else { (end, everybody) };
                if self.sent < t1 {
                    self.begin(now);
                }
                let actions = self.ask(now, DhcpMessageType::Request, None, Some((address, to)));
                let left = limit.saturating_duration_since(now);
                self.due = Some(now + (left / 2).max(RENEW_GAP).min(left));
                actions
            }
        }
    }

    /// What a frame brings. Whatever does not belong to the running transaction changes nothing.
    pub fn receive(&mut self, now: Instant, frame: &[u8]) -> Vec<Action> {
        let Some((via, bytes)) = frame::unwrap(frame, self.mac) else { return Vec::new() };
        let (reply, odd) = match message::parse(bytes, self.xid, self.mac) {
            Ok(message) => message,
            Err(Rejected::Foreign) => return Vec::new(),
            Err(error) => {
                debug!("dhcp: message not used: {error}");
                return Vec::new();
            }
        };
        match (&self.state, reply) {
            (State::Selecting, Reply::Offer(lease)) => {
                self.state = State::Requesting(lease);
                self.tries = 0;
                self.due = Some(now);
                self.tick(now)
            }
            (State::Requesting(offer), Reply::Ack(lease))
                if lease.server == offer.server && lease.address == offer.address =>
            {
                self.bind(lease, &odd, via)
            }
            (State::Requesting(offer), Reply::Nak { server }) if server == offer.server => {
                warn!("dhcp: {server} refuses the address that it offered, {}", offer.address);
                self.refused(now);
                Vec::new()
            }
            (State::Bound(held), Reply::Ack(lease))
                if held.answers(lease.server, self.sent) && lease.address == held.lease.address =>
            {
                self.bind(lease, &odd, via)
            }
            (State::Bound(held), Reply::Nak { server }) if held.answers(server, self.sent) => {
                warn!("dhcp: {server} takes {} back", held.lease.address);
                self.refused(now);
                vec![Action::Tell(FromDhcp::Expired)]
            }
            _ => Vec::new(),
        }
    }

    fn bind(&mut self, lease: Lease, odd: &[u8], via: Mac) -> Vec<Action> {
        for code in odd {
            warn!("dhcp: option {code} from {} makes no sense and is not used", lease.server);
        }
        let at = |secs| self.sent + Duration::from_secs(u64::from(secs));
        let times =
            (lease.lease_secs != u32::MAX).then(|| [at(lease.t1_secs), at(lease.t2_secs), at(lease.lease_secs)]);
        self.due = times.map(|[t1, ..]| t1);
        self.refusals = 0;
        self.state = State::Bound(Held { lease: lease.clone(), via, times });
        vec![Action::Tell(FromDhcp::Bound(lease))]
    }

    /// After a refusal the client waits, as a server that offers and refuses by turns would be asked for ever.
    fn refused(&mut self, now: Instant) {
        let pause = self.backoff(self.refusals);
        self.refusals += 1;
        self.restart(now);
        self.due = Some(now + pause);
    }

    fn restart(&mut self, now: Instant) {
        self.state = State::Selecting;
        self.due = Some(now);
        self.begin(now);
    }

    /// A new transaction: late answers to the old one are foreign from here on.
    fn begin(&mut self, now: Instant) {
        self.xid = self.draw();
        self.began = now;
        self.tries = 0;
    }

    /// `chosen`: address and server of the offer that is taken. `held`: our address, and whom to ask for more of it.
    fn ask(
        &mut self,
        now: Instant,
        kind: DhcpMessageType,
        chosen: Option<(Ipv4Addr, Ipv4Addr)>,
        held: Option<(Ipv4Addr, (Mac, Ipv4Addr))>,
    ) -> Vec<Action> {
        let (current, to) = held.unwrap_or((Ipv4Addr::UNSPECIFIED, (BROADCAST, Ipv4Addr::BROADCAST)));
        let message = message::build(&Query {
            kind,
            xid: self.xid,
            secs: u16::try_from(now.saturating_duration_since(self.began).as_secs()).unwrap_or(u16::MAX),
            mac: self.mac,
            current,
            chosen,
            hostname: self.hostname.as_deref(),
        });
        self.sent = now;
        self.due = Some(now + self.backoff(self.tries));
        self.tries += 1;
        vec![Action::Send(frame::wrap(Path { from: (self.mac, current), to }, &message))]
    }

    /// 1, 2, 4, 8, 16, 16 ... s, each a quarter more or less, so that machines that start together do not ask together.
    fn backoff(&mut self, step: u32) -> Duration {
        let millis = 750 + self.draw() % 501;
        Duration::from_millis(u64::from(millis)) * (1 << step.min(4))
    }

    /// xorshift64: nobody gains by guessing these, as whoever can answer has seen the question.
    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }
}

impl Held {
    /// Whether a reply of `server` can be one to the REQUEST sent at `sent`.
    fn answers(&self, server: Ipv4Addr, sent: Instant) -> bool {
        self.times.is_some_and(|[t1, t2, _]| sent >= t2 || sent >= t1 && server == self.lease.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::dhcp::samples::{
        ADDRESS, LEASE, MAC, OTHER_SERVER, SERVER, SERVER_MAC, asked, from_server, reply,
    };

    const ACK: u8 = 5;
    const NAK: u8 = 6;
    const OFFER: u8 = 2;

    /// A client with its own time, in milliseconds since it began.
    struct Bench {
        client: Client,
        start: Instant,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self { client: Client::new(MAC, Some("wn-7"), 42, start), start, now: start }
        }

        fn wait(&mut self) -> Vec<Action> {
            self.now = self.client.due().unwrap();
            self.client.tick(self.now)
        }

        fn hear(&mut self, kind: u8, server: [u8; 4], options: &[u8]) -> Vec<Action> {
            let message = reply(self.client.xid, kind, ADDRESS, server, options);
            self.client.receive(self.now, &from_server(&message))
        }

        fn elapsed(&self) -> Duration {
            self.now - self.start
        }

        /// Bound to SERVER, lease 3600 s, T1 1800 s, T2 3150 s; counted from the start, as all came at once.
        fn bound() -> Self {
            let mut bench = Self::new();
            bench.wait();
            bench.hear(OFFER, SERVER, LEASE);
            assert!(matches!(bench.hear(ACK, SERVER, LEASE)[..], [Action::Tell(FromDhcp::Bound(_))]));
            bench
        }
    }

    fn only_question(actions: &[Action]) -> asked::Asked {
        let [Action::Send(frame)] = actions else { panic!("{actions:?}") };
        asked::read(frame)
    }

    #[test]
    fn four_messages_give_a_lease_at_once() {
        let mut bench = Bench::new();
        let discover = only_question(&bench.wait());
        assert_eq!(bench.elapsed(), Duration::ZERO);
        assert_eq!((discover.kind, discover.to), (1, (BROADCAST, Ipv4Addr::BROADCAST)));
        assert_eq!((discover.from, discover.requested, discover.server), (Ipv4Addr::UNSPECIFIED, None, None));
        assert_eq!(discover.hostname.as_deref(), Some("wn-7"));

        let request = only_question(&bench.hear(OFFER, SERVER, LEASE));
        assert_eq!((request.kind, request.xid, request.to), (3, discover.xid, (BROADCAST, Ipv4Addr::BROADCAST)));
        assert_eq!((request.requested, request.server), (Some(ADDRESS.into()), Some(SERVER.into())));
        assert_eq!((request.from, request.current), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));

        let [Action::Tell(FromDhcp::Bound(lease))] = &bench.hear(ACK, SERVER, LEASE)[..] else { panic!() };
        assert_eq!((lease.address, lease.server), (ADDRESS.into(), SERVER.into()));
        assert_eq!(bench.elapsed(), Duration::ZERO);
    }

    #[test]
    fn discover_is_repeated_ever_more_slowly() {
        let mut bench = Bench::new();
        let first = only_question(&bench.wait());
        let mut before = bench.now;
        for seconds in [1, 2, 4, 8, 16, 16, 16] {
            assert!(bench.client.tick(bench.client.due().unwrap() - Duration::from_millis(1)).is_empty());
            let again = only_question(&bench.wait());
            let gap = bench.now - before;
            let base = Duration::from_secs(seconds);
            assert!(gap >= base * 3 / 4 && gap <= base * 5 / 4, "{gap:?} is not about {base:?}");
            assert_eq!((again.kind, again.xid), (1, first.xid));
            assert_eq!(u64::from(again.secs), bench.elapsed().as_secs());
            before = bench.now;
        }
    }

    #[test]
    fn machines_do_not_ask_in_step() {
        let start = Instant::now();
        let gaps: Vec<_> = (1..=8)
            .map(|seed| {
                let mut client = Client::new(MAC, None, seed << 40, start);
                client.tick(start);
                client.due().unwrap() - start
            })
            .collect();
        assert!(gaps.iter().any(|gap| *gap != gaps[0]), "{gaps:?}");
    }

    #[test]
    fn the_first_of_two_servers_wins() {
        let mut bench = Bench::new();
        bench.wait();
        assert_eq!(only_question(&bench.hear(OFFER, SERVER, LEASE)).server, Some(SERVER.into()));
        assert!(bench.hear(OFFER, OTHER_SERVER, LEASE).is_empty());
        assert!(bench.hear(ACK, OTHER_SERVER, LEASE).is_empty());
        assert!(bench.hear(NAK, OTHER_SERVER, &[]).is_empty());
        assert_eq!(bench.hear(ACK, SERVER, LEASE).len(), 1);
    }

    #[test]
    fn foreign_and_broken_messages_change_nothing() {
        let mut bench = Bench::new();
        bench.wait();
        let (xid, due) = (bench.client.xid, bench.client.due());
        let good = reply(xid, OFFER, ADDRESS, SERVER, LEASE);
        let mut foreign_xid = good.clone();
        foreign_xid[4] ^= 1;
        let mut foreign_mac = good.clone();
        foreign_mac[33] ^= 1;
        let mut garbage = good.clone();
        garbage.truncate(240);
        garbage.extend([53, 1, 2, 54, 200, 1, 2]);
        for (message, why) in [
            (foreign_xid, "foreign transaction"),
            (foreign_mac, "foreign machine"),
            (garbage, "truncated option"),
            (good[..100].to_vec(), "truncated header"),
            (reply(xid, ACK, ADDRESS, SERVER, LEASE), "acknowledgement of nothing"),
            (reply(xid, NAK, ADDRESS, SERVER, &[]), "refusal of nothing"),
            (reply(xid, 7, ADDRESS, SERVER, LEASE), "a client's message"),
        ] {
            assert!(bench.client.receive(bench.now, &from_server(&message)).is_empty(), "{why}");
            assert_eq!((bench.client.xid, bench.client.due()), (xid, due), "{why}");
        }
        assert_eq!(bench.client.receive(bench.now, &from_server(&good)).len(), 1);
    }

    #[test]
    fn a_silent_chosen_server_is_given_up() {
        let mut bench = Bench::new();
        let discover = only_question(&bench.wait());
        bench.hear(OFFER, SERVER, LEASE);
        assert_eq!(only_question(&bench.wait()).kind, 3);
        assert_eq!(only_question(&bench.wait()).kind, 3);
        let again = only_question(&bench.wait());
        assert_eq!(again.kind, 1);
        assert_ne!(again.xid, discover.xid);
        assert!(bench.elapsed() > Duration::from_secs(5) && bench.elapsed() < Duration::from_secs(9));
        assert_eq!(only_question(&bench.hear(OFFER, OTHER_SERVER, LEASE)).server, Some(OTHER_SERVER.into()));
    }

    #[test]
    fn refusals_slow_the_client_down() {
        let mut bench = Bench::new();
        let mut xid = only_question(&bench.wait()).xid;
        for seconds in [1, 2, 4] {
            bench.hear(OFFER, SERVER, LEASE);
            assert!(bench.hear(NAK, SERVER, &[]).is_empty());
            let refused = bench.now;
            let discover = only_question(&bench.wait());
            assert_eq!(discover.kind, 1);
            assert_ne!(discover.xid, xid);
            assert!(bench.now - refused >= Duration::from_secs(seconds) * 3 / 4);
            xid = discover.xid;
        }
    }

    #[test]
    fn a_lease_is_renewed_at_t1_by_its_server() {
        let mut bench = Bench::bound();
        assert!(bench.hear(ACK, SERVER, LEASE).is_empty(), "nothing was asked");
        let old = bench.client.xid;
        let request = only_question(&bench.wait());
        assert_eq!(bench.elapsed(), Duration::from_secs(1800));
        assert_eq!((request.kind, request.to), (3, (SERVER_MAC, SERVER.into())));
        assert_eq!((request.from, request.current), (ADDRESS.into(), ADDRESS.into()));
        assert_eq!((request.requested, request.server), (None, None), "RFC 2131 4.3.2");
        assert_ne!(request.xid, old);

        bench.now += Duration::from_secs(1);
        assert!(bench.hear(ACK, OTHER_SERVER, LEASE).is_empty());
        let elsewhere = reply(bench.client.xid, ACK, [10, 0, 0, 77], SERVER, LEASE);
        assert!(bench.client.receive(bench.now, &from_server(&elsewhere)).is_empty(), "another address");
        assert!(matches!(bench.hear(ACK, SERVER, LEASE)[..], [Action::Tell(FromDhcp::Bound(_))]));
        assert!(bench.hear(ACK, SERVER, LEASE).is_empty(), "the same again");
        bench.wait();
        assert_eq!(bench.elapsed(), Duration::from_secs(3600), "T1 counts from the request, not from its answer");
    }

    #[test]
    fn everybody_is_asked_after_t2_and_the_end_is_told() {
        let mut bench = Bench::bound();
        let mut asked = Vec::new();
        let end = loop {
            match &bench.wait()[..] {
                [Action::Send(frame)] => asked.push((bench.elapsed().as_secs(), asked::read(frame).to.0)),
                end => break end.to_vec(),
            }
        };
        let renewing: Vec<_> = asked.iter().filter(|(_, to)| *to == SERVER_MAC).map(|(at, _)| *at).collect();
        let rebinding: Vec<_> = asked.iter().filter(|(_, to)| *to == BROADCAST).map(|(at, _)| *at).collect();
        assert_eq!(renewing, [1800, 2475, 2812, 2981, 3065, 3125]);
        assert_eq!(rebinding, [3150, 3375, 3487, 3547]);
        assert_eq!(bench.elapsed(), Duration::from_secs(3600));
        let [Action::Tell(FromDhcp::Expired), Action::Send(discover)] = &end[..] else { panic!("{end:?}") };
        assert_eq!((asked::read(discover).kind, asked::read(discover).from), (1, Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn any_server_may_rebind() {
        let mut bench = Bench::bound();
        while bench.elapsed() < Duration::from_secs(3150) {
            bench.wait();
        }
        let [Action::Tell(FromDhcp::Bound(lease))] = &bench.hear(ACK, OTHER_SERVER, LEASE)[..] else { panic!() };
        assert_eq!(lease.server, Ipv4Addr::from(OTHER_SERVER));
    }

    #[test]
    fn an_address_that_is_taken_back_is_given_up() {
        let mut bench = Bench::bound();
        assert!(bench.hear(NAK, SERVER, &[]).is_empty(), "nothing was asked");
        bench.wait();
        assert_eq!(bench.hear(NAK, SERVER, &[]), [Action::Tell(FromDhcp::Expired)]);
        assert_eq!(only_question(&bench.wait()).kind, 1);
    }

    #[test]
    fn a_machine_that_slept_through_its_lease_starts_again() {
        let mut bench = Bench::bound();
        bench.now += Duration::from_secs(90_000);
        let actions = bench.client.tick(bench.now);
        assert!(matches!(actions[..], [Action::Tell(FromDhcp::Expired), Action::Send(_)]), "{actions:?}");
    }

    #[test]
    fn a_lease_for_ever_is_left_alone() {
        let mut bench = Bench::new();
        bench.wait();
        let for_ever = [1, 4, 255, 255, 255, 0, 51, 4, 255, 255, 255, 255];
        bench.hear(OFFER, SERVER, &for_ever);
        assert_eq!(bench.hear(ACK, SERVER, &for_ever).len(), 1);
        assert_eq!(bench.client.due(), None);
    }
}

//! The DNS check: a question for an address is answered without an error (RFC 1035).

use std::sync::atomic::{AtomicU16, Ordering};

use futures::future::BoxFuture;

use super::{Outcome, Probe, Progress, Target, Verdict, udp::exchange};

/// Bytes of a header.
const HEADER: usize = 12;
/// "This is an answer".
const RESPONSE: u8 = 0x80;
/// "Please ask others": many servers refuse questions without it.
const RECURSION_DESIRED: u8 = 0x01;
/// Record type A, class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// Asks for the address of a name.
#[derive(Debug)]
pub(super) struct DnsProbe {
    /// The question.
    question: Vec<u8>,
    query: String,
    /// Number of the next question.
    next: AtomicU16,
}

impl DnsProbe {
    /// For a name that the configuration has checked.
    pub(super) fn new(query: &str) -> Self {
        let mut question = Vec::with_capacity(query.len() + 6);
        for label in query.split('.').filter(|label| !label.is_empty()) {
            question.push(u8::try_from(label.len()).unwrap_or_default());
            question.extend(label.as_bytes());
        }
        question.push(0);
        question.extend(A_IN);
        Self { question, query: query.to_owned(), next: AtomicU16::new(1) }
    }

    fn message(&self, id: u16) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        let mut message = vec![high, low, RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(&self.question);
        message
    }

    fn judge(&self, id: u16, answer: &[u8]) -> Outcome {
        let wrong = |what: &str| Outcome::NotReady(format!("the question for {} got {what}", self.query));
        let Some(header) = answer.get(..HEADER) else { return wrong("no DNS message") };
        if header[..2] != id.to_be_bytes() || header[2] & RESPONSE == 0 {
            return wrong("an answer to another question");
        }
        match header[3] & 0x0f {
            0 => Outcome::Good,
            1 => wrong("FORMERR"),
            2 => wrong("SERVFAIL"),
            3 => wrong("NXDOMAIN"),
            5 => wrong("REFUSED"),
            code => wrong(&format!("response code {code}")),
        }
    }
}

impl Probe for DnsProbe {
    fn probe<'a>(&'a self, target: &'a Target, _: &'a Progress) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            match exchange(target.endpoint(), &self.message(id)).await {
                Ok(answer) => Ok(self.judge(id, &answer)),
                Err(verdict) => verdict,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;
    use crate::health::{probe::run, testing::target_at};

    #[test]
    fn a_question_has_the_form_of_rfc_1035() {
        let probe = DnsProbe::new("www.example.");
        let expected =
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01";
        assert_eq!(probe.message(0x1234), expected);
    }

    #[tokio::test]
    async fn the_response_code_decides() {
        for (code, want) in
            [(0, None), (2, Some("SERVFAIL")), (3, Some("NXDOMAIN")), (9, Some("response code 9"))]
        {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let target = target_at(socket.local_addr().unwrap());
            tokio::spawn(async move {
                let mut buffer = [0; 512];
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                (buffer[2], buffer[3]) = (0x81, 0x80 | code);
                socket.send_to(&buffer[..length], peer).await.unwrap();
            });
            let verdict = run(&DnsProbe::new("www.example"), &target).await.unwrap();
            let want = want.map_or(Outcome::Good, |words| {
                Outcome::NotReady(format!("the question for www.example got {words}"))
            });
            assert_eq!(verdict, want);
        }
    }

    #[test]
    fn rubbish_and_strangers_are_not_ready() {
        let probe = DnsProbe::new("a");
        for answer in
            [&b""[..], b"\x00\x07\x81", &[0; 12], &[0, 7, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0xff; 4096]]
        {
            assert!(matches!(probe.judge(7, answer), Outcome::NotReady(_)), "{answer:?}");
        }
    }
}

//! A link's part in comparing the two stores: it carries questions and answers, both ways.
//!
//! ```text
//! node.calls --> ask()    --> Compare  --> the peer's answer()
//!            <--          <-- Compared <--
//! ```
//!
//! The receiving half hands on what comes in and never waits: one question is under way at a time in
//! each direction, so what does not fit these few places breaks the rules and is dropped. Answers
//! take their turn with the frames of deltas.

use prost::Message as _;
use tokio::sync::mpsc;

use super::{exchange::LinkError, session::Session};
use crate::{
    node::{Answered, Answering, Call, LineEnd, Patience},
    protocol::{
        Frame,
        compare::{Answer, Ask},
    },
    wire::proto,
};

/// A question and what ends the comparison before it.
const QUESTIONS_QUEUED_MAX: usize = 4;

/// Where the receiving half leaves what comes in.
#[derive(Debug)]
pub(super) struct Comparing {
    asked: mpsc::Sender<(u64, Ask)>,
    answered: mpsc::Sender<(u64, Answer)>,
}

/// What comes in, for the halves that ask and answer.
pub(super) struct Incoming {
    pub(super) asked: mpsc::Receiver<(u64, Ask)>,
    pub(super) answered: mpsc::Receiver<(u64, Answer)>,
}

impl Comparing {
    pub(super) fn new() -> (Comparing, Incoming) {
        let (asked, questions) = mpsc::channel(QUESTIONS_QUEUED_MAX);
        let (answered, answers) = mpsc::channel(1);
        (Comparing { asked, answered }, Incoming { asked: questions, answered: answers })
    }

    /// The peer asks.
    pub(super) fn on_ask(&self, id: u64, ask: Ask) {
        let _ = self.asked.try_send((id, ask));
    }

    /// The peer answers.
    pub(super) fn on_answer(&self, id: u64, answer: Answer) {
        let _ = self.answered.try_send((id, answer));
    }
}

impl Session<'_> {
    /// Asks the peer what this node wants to know; ends only with an error.
    pub(super) async fn ask(
        &self,
        out: &mpsc::Sender<proto::Frame>,
        mut line: LineEnd,
        mut answers: mpsc::Receiver<(u64, Answer)>,
    ) -> LinkError {
        loop {
            let Call { id, ask, answer } = line.next().await;
            // What nobody waits for any more.
            while answers.try_recv().is_ok() {}
            let question = proto::Frame::from(Frame::Compare { id, ask });
            let asked_bytes = question.encoded_len();
            if out.send(question).await.is_err() {
                return closed();
            }
            let Some(mut sender) = answer else { continue };
            loop {
                tokio::select! {
                    Some((of, answer)) = answers.recv() => {
                        if of == id {
                            let bytes = asked_bytes + frame_bytes(id, &answer);
                            let _ = sender.send(Answered { answer, bytes: bytes as u64 });
                            break;
                        }
                    }
                    () = sender.closed() => break,
                }
            }
        }
    }

    /// Answers what the peer asks; ends only with an error.
    pub(super) async fn answer(
        &self,
        out: &mpsc::Sender<proto::Frame>,
        mut questions: mpsc::Receiver<(u64, Ask)>,
    ) -> LinkError {
        let mut answering = Answering::new(self.node, Patience::default());
        loop {
            let (id, ask) = tokio::select! {
                Some(question) = questions.recv() => question,
                () = answering.expire() => continue,
            };
            if let Some(answer) = answering.answer(id, ask).await {
                let frame = Frame::Compared { id, answer };
                if out.send(frame.into()).await.is_err() {
                    return closed();
                }
            }
        }
    }
}

fn closed() -> LinkError {
    LinkError::Lost("the connection is closed".into())
}

/// What an answer took on the wire.
fn frame_bytes(id: u64, answer: &Answer) -> usize {
    proto::Frame::from(Frame::Compared { id, answer: answer.clone() }).encoded_len()
}

//! Actors and their scheduling. An actor is a future that only the scheduler polls; every poll takes it to its next
//! step.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::seeded_rng::SeededRng;

/// A running program: an owner of the queue, a relay, an operator. Dropping it is a crash.
pub type Actor<T = ()> = Pin<Box<dyn Future<Output = T>>>;

/// Yields: any other actor may move here, and this one may crash.
pub fn step() -> Step {
    Step { waited: false }
}

/// See [`step`].
pub struct Step {
    waited: bool,
}

impl Future for Step {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.waited {
            return Poll::Ready(());
        }
        self.waited = true;
        Poll::Pending
    }
}

/// Lets an actor move to its next step. Returns its output once it has ended.
pub fn advance<T>(actor: &mut Actor<T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match actor.as_mut().poll(&mut context) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Lets an actor move until it has ended.
#[track_caller]
pub fn finish<T>(actor: impl Future<Output = T>) -> T {
    let mut actor = std::pin::pin!(actor);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000_000 {
        if let Poll::Ready(result) = actor.as_mut().poll(&mut context) {
            return result;
        }
    }
    panic!("the actor does not end");
}

/// Runs two actors in one program, of which a random one moves at each step.
pub async fn race<A, B>(mut rng: SeededRng, a: Actor<A>, b: Actor<B>) -> (A, B) {
    let (mut a, mut b) = (Racer::Running(a), Racer::Running(b));
    loop {
        let first = rng.one_in(2);
        match (a, b) {
            (Racer::Ended(a), Racer::Ended(b)) => return (a, b),
            (Racer::Running(x), Racer::Ended(y)) => {
                a = Racer::moved(x);
                b = Racer::Ended(y);
            }
            (Racer::Ended(x), Racer::Running(y)) => {
                a = Racer::Ended(x);
                b = Racer::moved(y);
            }
            (Racer::Running(x), Racer::Running(y)) if first => {
                a = Racer::moved(x);
                b = Racer::Running(y);
            }
            (Racer::Running(x), Racer::Running(y)) => {
                a = Racer::Running(x);
                b = Racer::moved(y);
            }
        }
        step().await;
    }
}

enum Racer<T> {
    Running(Actor<T>),
    Ended(T),
}

impl<T> Racer<T> {
    fn moved(mut actor: Actor<T>) -> Self {
        match advance(&mut actor) {
            Some(result) => Self::Ended(result),
            None => Self::Running(actor),
        }
    }
}

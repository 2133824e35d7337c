//! Small scenes, played in every order of their actors' steps, with a crash at every step.

use std::sync::{Arc, Mutex};

use super::{
    executor::{Actor, advance},
    history::History,
    input::Input,
    queue::Queue,
    seeded_rng::SeededRng,
    shape::Shape,
    world::{Environment, Shared},
    yielding_store::{Bug, Steps, YieldingStore},
};
use doorstep_event::{Source, Timestamp};
use doorstep_runtime::operate::OperateError;
use doorstep_store::MemoryStore;

pub fn at() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// One play of a scene.
pub struct Play {
    /// The store without steps, to set the scene and to check its end.
    pub memory: MemoryStore,
    /// The store as the actors use it.
    pub store: YieldingStore<MemoryStore>,
    /// The results that operators got, by their names.
    pub heard: Heard,
}

/// The results that operators got, by their names.
pub type Heard = Arc<Mutex<Vec<(&'static str, Result<(), OperateError>)>>>;

impl Play {
    fn new(bug: Bug, steps: Steps) -> Self {
        let memory = MemoryStore::with_source(Source::new("ledger/scene").unwrap());
        let world = quiet_world(memory.clone());
        Self {
            store: YieldingStore::new(memory.clone(), world, bug, steps),
            memory,
            heard: Arc::default(),
        }
    }

    /// Returns the operators whose call succeeded.
    pub fn winners(&self) -> Vec<&'static str> {
        let heard = self.heard.lock().unwrap();
        let won = heard.iter().filter(|(_, result)| result.is_ok());
        won.map(|(who, _)| *who).collect()
    }
}

fn quiet_world(store: MemoryStore) -> Shared {
    let mut rng = SeededRng::new(0);
    Arc::new(Mutex::new(Environment {
        clock: at(),
        ahead: std::time::Duration::ZERO,
        input: Input::new(&mut rng, at(), 0, false),
        rng,
        shape: Shape::from_seed(0),
        faulty: false,
        callers: super::callers::Callers::new(
            &mut SeededRng::new(0),
            at(),
            &Shape {
                commands: 0,
                ..Shape::from_seed(0)
            },
        ),
        queue: Queue::new(1, 1),
        history: History::default(),
        published: Vec::new(),
        store,
        moving: String::new(),
        trace: Vec::new(),
        died: false,
        monotonic: std::time::Duration::ZERO,
        base: std::time::Instant::now(),
        processes: 0,
        alive: std::collections::BTreeSet::new(),
        outside: Vec::new(),
        tokens: std::collections::BTreeMap::new(),
    }))
}

/// Starts an actor. A crashed one is started anew.
pub type Role = Box<dyn Fn(&Play) -> Actor>;

/// Sets a scene.
pub type Setting = Box<dyn Fn(&Play)>;

/// Checks the end of a scene.
pub type Ending = Box<dyn Fn(&Play) -> Result<(), String>>;

/// A scene: its setting, its actors, and the condition at its end.
pub struct Scene {
    pub set: Setting,
    pub actors: Vec<Role>,
    pub end: Ending,
    /// The maximum of crashes in one play.
    pub crashes: usize,
    pub steps: Steps,
    pub bug: Bug,
}

/// The next action in a play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Move(usize),
    /// A started or even ended actor loses everything that it has not reported, and starts anew.
    Crash(usize),
    End,
}

impl Scene {
    /// Plays the scene in every order. Returns the number of orders.
    ///
    /// # Errors
    /// The first order with a wrong end, and the reason.
    pub fn play_all(&self) -> Result<usize, String> {
        let mut path: Vec<(usize, usize)> = Vec::new();
        let mut playings = 0;
        loop {
            let played = self.play(&mut path)?;
            playings += 1;
            assert!(playings < 300_000, "the scene is too large: {played:?}");
            // The next path: the last choice with an alternative takes it, and all later ones are dropped.
            while let Some((choice, of)) = path.pop() {
                if choice + 1 < of {
                    path.push((choice + 1, of));
                    break;
                }
            }
            if path.is_empty() {
                return Ok(playings);
            }
        }
    }

    /// Plays along a path, whose entries are the choice taken and the number of choices, and extends it by first
    /// choices to the end.
    fn play(&self, path: &mut Vec<(usize, usize)>) -> Result<Vec<Choice>, String> {
        let play = Play::new(self.bug, self.steps);
        (self.set)(&play);
        let mut cast = Cast {
            actors: self.actors.iter().map(|a| Some(a(&play))).collect(),
            begun: vec![false; self.actors.len()],
            crashes: self.crashes,
        };
        let mut taken = Vec::new();
        for depth in 0.. {
            let choices = cast.choices();
            if depth == path.len() {
                path.push((0, choices.len()));
            }
            let choice = choices[path[depth].0];
            taken.push(choice);
            match choice {
                Choice::Move(number) => cast.advance(number),
                Choice::Crash(number) => {
                    let anew = self.actors[number](&play);
                    cast.crash(number, anew);
                }
                Choice::End => break,
            }
        }
        match (self.end)(&play) {
            Ok(()) => Ok(taken),
            Err(wrong) => Err(format!("{wrong}, after {taken:?}")),
        }
    }
}

/// The actors of a play.
struct Cast {
    /// `None` for those that have ended.
    actors: Vec<Option<Actor>>,
    begun: Vec<bool>,
    /// The number of crashes left.
    crashes: usize,
}

impl Cast {
    /// Returns the possible next actions; there is always one.
    fn choices(&self) -> Vec<Choice> {
        let numbers = || 0..self.actors.len();
        let mut choices: Vec<_> = numbers()
            .filter(|number| self.actors[*number].is_some())
            .map(Choice::Move)
            .collect();
        if choices.is_empty() {
            choices.push(Choice::End);
        }
        if self.crashes > 0 {
            choices.extend(numbers().filter(|n| self.begun[*n]).map(Choice::Crash));
        }
        choices
    }

    fn advance(&mut self, number: usize) {
        self.begun[number] = true;
        let actor = &mut self.actors[number];
        if actor.as_mut().is_none_or(|actor| advance(actor).is_some()) {
            *actor = None;
        }
    }

    fn crash(&mut self, number: usize, anew: Actor) {
        self.crashes -= 1;
        self.begun[number] = false;
        self.actors[number] = Some(anew);
    }
}

//! Where the demo is told: line by line, as a picture that changes, or not at all.

use super::lab::{FLOATING, Lab};
use super::scene::{Actor, Beat, Condition, Scene};
use crate::classic::Recorder;
use crate::term::Screen;
use haven_admin::Client;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

/// Time between two pictures, which is also a column of the strip.
const BEAT: Duration = Duration::from_millis(100);
/// How long a node may take to say how it is.
const PATIENCE: Duration = Duration::from_millis(500);

/// See the module's head comment.
pub struct Stage {
    began: Instant,
    silent: bool,
    live: Option<Live>,
}

struct Live {
    shared: Arc<Shared>,
    painter: JoinHandle<()>,
    askers: JoinSet<()>,
}

struct Shared {
    scene: Mutex<Scene>,
    recorder: Mutex<Option<Arc<Recorder>>>,
}

impl Stage {
    /// Lines on standard output, or nothing.
    pub fn plain(silent: bool) -> Self {
        Self {
            began: Instant::now(),
            silent,
            live: None,
        }
    }

    /// A picture on the terminal, drawn by a task of its own.
    ///
    /// # Errors
    /// When the terminal cannot be written to, in words.
    pub fn live(lab: &Lab, seed: u64) -> Result<Self, String> {
        let screen = Screen::enter().map_err(|e| e.to_string())?;
        let began = Instant::now();
        let actors = lab.nodes.iter().map(|node| Actor {
            name: node.name.clone(),
            ..Actor::default()
        });
        let scene = Scene {
            seed,
            actors: actors.collect(),
            floating: FLOATING.to_string(),
            blocks: knows_blocks(),
            ..Scene::default()
        };
        let shared = Arc::new(Shared {
            scene: Mutex::new(scene),
            recorder: Mutex::default(),
        });
        let mut askers = JoinSet::new();
        for (index, asker) in lab.askers(PATIENCE).into_iter().enumerate() {
            askers.spawn(ask(Arc::clone(&shared), index, asker));
        }
        let painter = tokio::spawn(paint(Arc::clone(&shared), screen, began));
        Ok(Self {
            began,
            silent: false,
            live: Some(Live {
                shared,
                painter,
                askers,
            }),
        })
    }

    /// Whether somebody looks at a picture.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Tells what has happened.
    pub fn say(&self, what: &str) {
        let line = format!("{:7.2} s  {what}", self.began.elapsed().as_secs_f32());
        match &self.live {
            Some(live) => live.shared.scene.lock().story.push(line),
            None if self.silent => {}
            None => println!("{line}"),
        }
    }

    /// Tells what is going on. Only a picture shows that.
    pub fn now(&self, what: &str) {
        if let Some(live) = &self.live {
            live.shared.scene.lock().now = what.to_owned();
        }
    }

    /// What was done to a node.
    pub fn condition(&self, index: usize, condition: Condition) {
        if let Some(live) = &self.live
            && let Some(actor) = live.shared.scene.lock().actors.get_mut(index)
        {
            actor.condition = condition;
        }
    }

    /// Whose waits are shown.
    pub fn watch(&self, recorder: &Arc<Recorder>) {
        if let Some(live) = &self.live {
            *live.shared.recorder.lock() = Some(Arc::clone(recorder));
        }
    }

    /// Ends the picture; what happened stays to be read.
    pub async fn end(&mut self) {
        let Some(live) = self.live.take() else {
            return;
        };
        drop(live.askers);
        live.painter.abort();
        // Gives the terminal back.
        let _ = live.painter.await;
        for line in &live.shared.scene.lock().story {
            println!("{line}");
        }
    }
}

/// Whether the terminal's character set has block elements.
fn knows_blocks() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    let name = set.map(|value| value.to_string_lossy().to_ascii_lowercase());
    name.is_some_and(|name| name.contains("utf-8") || name.contains("utf8"))
}

/// Keeps what a node says of itself.
async fn ask(shared: Arc<Shared>, index: usize, asker: Client) {
    let mut clock = interval(BEAT);
    loop {
        clock.tick().await;
        let condition = shared.scene.lock().actors[index].condition;
        let report = match condition {
            Condition::Killed | Condition::Frozen => None,
            Condition::Well | Condition::CutOff => asker.node().await.ok(),
        };
        shared.scene.lock().actors[index].report = report;
    }
}

async fn paint(shared: Arc<Shared>, mut screen: Screen, began: Instant) {
    let mut clock = interval(BEAT);
    // A picture that came late must not be followed by one without operations.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let picture = {
            let mut scene = shared.scene.lock();
            scene.elapsed = began.elapsed();
            if let Some(recorder) = &*shared.recorder.lock() {
                let (operations, longest) = recorder.take_beat();
                scene.acknowledged = recorder.acknowledged();
                scene.beat(Beat {
                    operations,
                    longest,
                });
            }
            scene.draw()
        };
        // A terminal that is gone sees nothing; the demo goes on.
        let _ = screen.draw(&picture);
    }
}

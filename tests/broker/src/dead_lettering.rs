//! A workaround for a supervisor of the broker that gives up for good under the load of many tests.

use anyhow::{Result, ensure};

/// Lets a node survive crashes of its dead-lettering workers, one for each quorum queue with at-least-once
/// dead-lettering. Their supervisor, which the whole node shares, gives up for good after two crashes within five
/// seconds (RabbitMQ 3.10; 100 within a second in newer versions). From then on every such queue crashes when it is
/// declared, with `INTERNAL_ERROR` for its clients: <https://github.com/rabbitmq/rabbitmq-server/issues/16652>. Tests
/// that create and delete hundreds of queues concurrently reach that by chance. `ctl` runs `rabbitmqctl` on the node.
///
/// # Errors
/// As `ctl`, or if the supervisor's state has an unexpected form.
pub fn outlive_worker_crashes(ctl: impl Fn(&[&str]) -> Result<String>) -> Result<()> {
    // Fields 6 and 7 of the supervisor's state are its intensity and its period.
    let raise = "Raised = sys:replace_state(rabbit_fifo_dlx_sup, fun(State) -> \
                 {ok, {#{intensity := I, period := P}, _}} = rabbit_fifo_dlx_sup:init([]), \
                 {I, P} = {element(6, State), element(7, State)}, \
                 setelement(6, State, 1000000) end), \
                 element(6, Raised).";
    let raised = ctl(&["eval", raise])?;
    ensure!(
        raised.trim() == "1000000",
        "the supervisor of dead-lettering workers has an unexpected state: {raised}"
    );
    Ok(())
}

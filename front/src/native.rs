//! The services that the front answers itself, as one set of routes.

use std::sync::Arc;
use std::time::Duration;

use config::Config;
use tonic::service::Routes;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::deadline::Deadlines;
use crate::discovery;
use crate::lanyard::{Lanyard, Orders};
use crate::link::Link;
use crate::motion::Motion;
use crate::sessions::Sessions;
use crate::viam::{AsOperations, Operations, Robot};

/// How long a request may take between two pieces of it; all of them fit one packet.
const PIECE: Duration = Duration::from_secs(10);

/// All of them; any other method is answered with UNIMPLEMENTED. `operations` are the calls under way.
#[must_use]
pub fn routes(
    config: &Arc<Config>,
    link: &Arc<Link>,
    sessions: &Arc<Sessions>,
    motion: &Arc<Motion>,
    orders: &Arc<Orders>,
    operations: &Arc<Operations>,
) -> Routes {
    let robot = Robot::new(
        Arc::clone(config),
        Arc::clone(link),
        Arc::clone(sessions),
        Arc::clone(motion),
        Arc::clone(operations),
    );
    let lanyard =
        Lanyard::new(Arc::clone(config), Arc::clone(link), Arc::clone(sessions), Arc::clone(orders));
    let mut routes = Routes::builder();
    robot.serve(&mut routes);
    lanyard.serve(&mut routes);
    discovery::serve(&mut routes, Arc::clone(link), config.supervisor.front_window);
    // Outside of the services: also a call that none of them knows is an operation while it lasts.
    let calls =
        routes.routes().into_axum_router().layer(AsOperations(Arc::clone(operations))).layer(Deadlines);
    // Whoever sends a request byte by byte must not keep a call open for ever.
    calls.layer(RequestBodyTimeoutLayer::new(PIECE)).into()
}

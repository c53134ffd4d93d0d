//! What a client may ask before it knows anything: which services there are (reflection), and whether they work (health).
//!
//! What must never live here: anything that is not the same for every protocol.

mod health;

use std::sync::Arc;
use std::time::Duration;

use tonic::service::RoutesBuilder;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;
use tracing::error;

use crate::link::Link;
use crate::proto;
use health::Watched;

/// Adds reflection, in both of its versions, and health to the services of a gRPC server. A supervisor that has been
/// silent for longer than `patience` is gone.
pub fn serve(routes: &mut RoutesBuilder, link: Arc<Link>, patience: Duration) {
    let known = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Clients ask for the newer version first; viam-server has the older one, too.
    match (known().build_v1(), known().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => drop(routes.add_service(v1).add_service(v1alpha)),
        (Err(error), _) | (_, Err(error)) => error!("no reflection: {error}"),
    }
    routes.add_service(HealthServer::new(Watched::new(link, patience)));
}

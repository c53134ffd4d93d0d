//! Viam's base service, for differential bases.
//!
//! A speed that a wheel cannot reach is scaled down on both sides alike: slower, on the same curve.

use config::Base;
use drivers::RevolutionsPerSecond;
use shm_proto::MotorIndex;
use tonic::{Request, Response, Status};

use super::association::Monitored;
use super::kinematics::{Course, Sides, Wheels, mix};
use super::proto::base::base_service_server::BaseService;
use super::proto::base::{
    GetPropertiesRequest, GetPropertiesResponse, IsMovingRequest, IsMovingResponse, MoveStraightRequest,
    MoveStraightResponse, SetPowerRequest, SetPowerResponse, SetVelocityRequest, SetVelocityResponse,
    SpinRequest, SpinResponse, StopRequest, StopResponse,
};
use super::proto::common::Vector3;
use super::refusal::finite;
use super::{Robot, resources};
use crate::motion::{Notes, Target, Travel};
use crate::order::Origin;
use crate::sessions::{Driven, Hold, Stopped, Use};

const fn wheels(base: &Base) -> Wheels {
    Wheels { circumference_mm: base.wheel_circumference_mm, width_mm: base.width_mm }
}

fn index(place: usize) -> MotorIndex {
    // The configuration has at most 256 motors; a place beyond names no motor and is refused as such.
    MotorIndex(u16::try_from(place).unwrap_or(u16::MAX))
}

fn motors(base: &Base) -> impl Iterator<Item = MotorIndex> {
    base.left.iter().chain(&base.right).map(|place| index(*place))
}

/// Forwards and to the left, of the two vectors of a request; all other axes mean nothing to wheels.
fn forward_and_left(linear: Option<Vector3>, angular: Option<Vector3>) -> Result<(f64, f64), Status> {
    let forward = finite("linear.y", linear.unwrap_or_default().y)?;
    let left = finite("angular.z", angular.unwrap_or_default().z)?;
    Ok((forward, left))
}

impl Robot {
    /// Largest speed that every motor of a side reaches, rpm.
    fn most(&self, base: &Base) -> Sides {
        let slowest = |side: &[usize]| {
            let motors = side.iter().filter_map(|place| self.config.motors.get(*place));
            motors.map(|motor| motor.max_rpm).fold(f64::INFINITY, f64::min)
        };
        Sides { left: slowest(&base.left), right: slowest(&base.right) }
    }

    /// Each motor of a base with its speed. What conversion adds beyond the limit is cut off.
    fn speeds(&self, base: &Base, rpm: Sides) -> Vec<Target> {
        let side = |places: &[usize], rpm: f64| -> Vec<Target> {
            let target = |place: &usize| {
                let most = self.config.motors.get(*place).map_or(0.0, |motor| motor.drive.max_speed.0);
                let speed = RevolutionsPerSecond(RevolutionsPerSecond::from_rpm(rpm).0.clamp(-most, most));
                Target { motor: index(*place), speed }
            };
            places.iter().map(target).collect()
        };
        [side(&base.left, rpm.left), side(&base.right, rpm.right)].concat()
    }

    /// Takes the session of a call for a base, and notes that its command begins.
    fn use_base(&self, call: &Monitored, base: &Base) -> Result<(Hold, Use), Status> {
        let motors: Vec<_> = motors(base).collect();
        let key = resources::key(resources::BASE, &base.name);
        let hold = call.hold(&self.sessions, Driven { resource: &key, motors: &motors })?;
        let under_way = self.sessions.use_resource_since(&hold, &key, &motors, call.origin.began().at())?;
        Ok((hold, under_way))
    }

    /// Brings a base to rest by a command that says so.
    async fn rest_base(&self, call: &Monitored, base: &Base) -> Result<(), Status> {
        let motors: Vec<_> = motors(base).collect();
        let key = resources::key(resources::BASE, &base.name);
        let _under_way = call.rests(&self.sessions, &key, &motors)?;
        // A stick that passes its middle acknowledges no fault.
        self.stop_base(&call.origin, base, Notes::Stop).await
    }

    async fn turn_base(&self, call: &Monitored, base: &Base, rpm: Sides) -> Result<(), Status> {
        if rpm.is_still() {
            return self.rest_base(call, base).await;
        }
        let (hold, _under_way) = self.use_base(call, base)?;
        Ok(self.motion.turn(&hold, &call.origin, &self.speeds(base, rpm)).await?)
    }

    async fn drive_base(&self, call: &Monitored, base: &Base, course: Course) -> Result<(), Status> {
        let Course { rpm, revolutions } = course;
        if revolutions == 0.0 || rpm.is_still() {
            return self.rest_base(call, base).await;
        }
        let (hold, _under_way) = self.use_base(call, base)?;
        let speeds = self.speeds(base, rpm.within(self.most(base)));
        let legs: Vec<_> = speeds
            .iter()
            .map(|target| Travel { motor: target.motor, speed: target.speed, revolutions })
            .collect();
        self.motion.travel(&hold, &call.origin, &legs).await?;
        self.sessions.rest_before(&resources::key(resources::BASE, &base.name), call.origin.began().at());
        Ok(())
    }

    async fn stop_base(&self, origin: &Origin, base: &Base, notes: Notes) -> Result<(), Status> {
        let motors: Vec<_> = motors(base).collect();
        self.motion.stop(origin, &motors, notes).await?;
        let key = resources::key(resources::BASE, &base.name);
        self.sessions.rest_before(&key, origin.complete().at());
        self.sessions.note_stop(origin, Stopped::One(Driven { resource: &key, motors: &motors }));
        Ok(())
    }
}

#[tonic::async_trait]
impl BaseService for Robot {
    async fn move_straight(
        &self,
        request: Request<MoveStraightRequest>,
    ) -> Result<Response<MoveStraightResponse>, Status> {
        let call = self.monitored(&request)?;
        let MoveStraightRequest { name, distance_mm, mm_per_sec } = request.into_inner();
        let base = resources::base(&self.config, &name)?;
        #[expect(clippy::cast_precision_loss, reason = "2^53 mm is beyond Pluto")]
        let course = wheels(base).straight(distance_mm as f64, finite("mm_per_sec", mm_per_sec)?);
        self.drive_base(&call, base, course).await?;
        Ok(Response::new(MoveStraightResponse {}))
    }

    async fn spin(&self, request: Request<SpinRequest>) -> Result<Response<SpinResponse>, Status> {
        let call = self.monitored(&request)?;
        let SpinRequest { name, angle_deg, degs_per_sec } = request.into_inner();
        let base = resources::base(&self.config, &name)?;
        let course =
            wheels(base).spin(finite("angle_deg", angle_deg)?, finite("degs_per_sec", degs_per_sec)?);
        self.drive_base(&call, base, course).await?;
        Ok(Response::new(SpinResponse {}))
    }

    async fn set_power(
        &self,
        request: Request<SetPowerRequest>,
    ) -> Result<Response<SetPowerResponse>, Status> {
        let call = self.monitored(&request)?;
        let SetPowerRequest { name, linear, angular } = request.into_inner();
        let base = resources::base(&self.config, &name)?;
        let (forward, left) = forward_and_left(linear, angular)?;
        let power = mix(forward.clamp(-1.0, 1.0), left.clamp(-1.0, 1.0));
        // Full power is what the slowest motor can do, on both sides: straight must be straight.
        let most = self.most(base);
        let full = most.left.min(most.right);
        let rpm = Sides { left: power.left * full, right: power.right * full };
        self.turn_base(&call, base, rpm).await?;
        Ok(Response::new(SetPowerResponse {}))
    }

    async fn set_velocity(
        &self,
        request: Request<SetVelocityRequest>,
    ) -> Result<Response<SetVelocityResponse>, Status> {
        let call = self.monitored(&request)?;
        let SetVelocityRequest { name, linear, angular } = request.into_inner();
        let base = resources::base(&self.config, &name)?;
        let (forward, left) = forward_and_left(linear, angular)?;
        let rpm = wheels(base).velocity(forward, left).within(self.most(base));
        self.turn_base(&call, base, rpm).await?;
        Ok(Response::new(SetVelocityResponse {}))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let origin = Origin::of(request.extensions())?;
        let base = resources::base(&self.config, &request.into_inner().name)?;
        self.stop_base(&origin, base, Notes::StopAndDriveFault).await?;
        Ok(Response::new(StopResponse {}))
    }

    async fn is_moving(
        &self,
        request: Request<IsMovingRequest>,
    ) -> Result<Response<IsMovingResponse>, Status> {
        let base = resources::base(&self.config, &request.into_inner().name)?;
        let is_moving = motors(base).any(|motor| {
            let settings = self.config.motors.get(usize::from(motor.0));
            settings.is_some_and(|settings| self.moves(motor, settings))
        });
        Ok(Response::new(IsMovingResponse { is_moving }))
    }

    async fn get_properties(
        &self,
        request: Request<GetPropertiesRequest>,
    ) -> Result<Response<GetPropertiesResponse>, Status> {
        let base = resources::base(&self.config, &request.into_inner().name)?;
        Ok(Response::new(GetPropertiesResponse {
            width_meters: base.width_mm / 1_000.0,
            // It turns on the spot.
            turning_radius_meters: 0.0,
            wheel_circumference_meters: base.wheel_circumference_mm / 1_000.0,
        }))
    }
}

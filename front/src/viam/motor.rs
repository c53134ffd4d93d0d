//! Viam's motor service.

use drivers::{Power, RevolutionsPerSecond};
use shm_proto::MotorIndex;
use tonic::{Request, Response, Status};

use super::association::Monitored;
use super::proto::motor::motor_service_server::MotorService;
use super::proto::motor::{
    GetPositionRequest, GetPositionResponse, GetPropertiesRequest, GetPropertiesResponse, GoForRequest,
    GoForResponse, GoToRequest, GoToResponse, IsMovingRequest, IsMovingResponse, IsPoweredRequest,
    IsPoweredResponse, ResetZeroPositionRequest, ResetZeroPositionResponse, SetPowerRequest,
    SetPowerResponse, SetRpmRequest, SetRpmResponse, StopRequest, StopResponse,
};
use super::refusal::finite;
use super::{Robot, resources};
use crate::motion::{Notes, Target, Travel};
use crate::order::Origin;
use crate::sessions::{Driven, Hold, Stopped, Use};

impl Robot {
    /// Takes the session of a call for a motor, and notes that its command begins.
    fn use_motor(&self, call: &Monitored, name: &str, motor: MotorIndex) -> Result<(Hold, Use), Status> {
        let key = resources::key(resources::MOTOR, name);
        let hold = call.hold(&self.sessions, Driven { resource: &key, motors: &[motor] })?;
        let under_way = self.sessions.use_resource_since(&hold, &key, &[motor], call.origin.began().at())?;
        Ok((hold, under_way))
    }

    /// Stops one motor.
    async fn stop_motor(
        &self,
        origin: &Origin,
        name: &str,
        motor: MotorIndex,
        notes: Notes,
    ) -> Result<(), Status> {
        self.motion.stop(origin, &[motor], notes).await?;
        let key = resources::key(resources::MOTOR, name);
        self.sessions.rest_before(&key, origin.complete().at());
        self.sessions.note_stop(origin, Stopped::One(Driven { resource: &key, motors: &[motor] }));
        Ok(())
    }

    /// Makes one motor turn; at speed 0 it is stopped, which needs no grant and enables no drive.
    async fn turn_motor(
        &self,
        call: &Monitored,
        name: &str,
        motor: MotorIndex,
        rpm: f64,
    ) -> Result<(), Status> {
        if rpm == 0.0 {
            let _under_way = call.rests(&self.sessions, &resources::key(resources::MOTOR, name), &[motor])?;
            // A stick that passes its middle acknowledges no fault.
            return self.stop_motor(&call.origin, name, motor, Notes::Stop).await;
        }
        let (hold, _under_way) = self.use_motor(call, name, motor)?;
        let speed = RevolutionsPerSecond::from_rpm(rpm);
        Ok(self.motion.turn(&hold, &call.origin, &[Target { motor, speed }]).await?)
    }

    /// Whether a motor moves: by its own word while it is heard, else by what it was told last.
    pub(super) fn moves(&self, motor: MotorIndex, settings: &config::Motor) -> bool {
        let reading = self.motion.reading(motor);
        let commanded = reading.commanded.is_some_and(|speed| speed.0 != 0.0);
        match reading.velocity {
            // Written so that NaN counts as moving.
            Some(velocity) if reading.fresh => {
                let still = velocity.0.abs() <= settings.drive.stop.stage(0).proof.max_speed.0;
                !still
            }
            _ => commanded,
        }
    }
}

#[tonic::async_trait]
impl MotorService for Robot {
    async fn set_power(
        &self,
        request: Request<SetPowerRequest>,
    ) -> Result<Response<SetPowerResponse>, Status> {
        let call = self.monitored(&request)?;
        let SetPowerRequest { name, power_pct } = request.into_inner();
        let (motor, settings) = resources::motor(&self.config, &name)?;
        let power = finite("power_pct", power_pct)?.clamp(-1.0, 1.0);
        self.turn_motor(&call, &name, motor, power * settings.max_rpm).await?;
        Ok(Response::new(SetPowerResponse {}))
    }

    async fn set_rpm(&self, request: Request<SetRpmRequest>) -> Result<Response<SetRpmResponse>, Status> {
        let call = self.monitored(&request)?;
        let SetRpmRequest { name, rpm } = request.into_inner();
        let (motor, _) = resources::motor(&self.config, &name)?;
        // Faster than max_rpm is refused by motion, with both numbers.
        self.turn_motor(&call, &name, motor, finite("rpm", rpm)?).await?;
        Ok(Response::new(SetRpmResponse {}))
    }

    async fn go_for(&self, request: Request<GoForRequest>) -> Result<Response<GoForResponse>, Status> {
        let call = self.monitored(&request)?;
        let GoForRequest { name, rpm, revolutions } = request.into_inner();
        let (motor, _) = resources::motor(&self.config, &name)?;
        let (rpm, revolutions) = (finite("rpm", rpm)?, finite("revolutions", revolutions)?);
        if rpm == 0.0 || revolutions == 0.0 {
            return Err(Status::invalid_argument(
                "GoFor needs an rpm and a number of revolutions, neither of them 0; \
                 use SetRPM to turn without an end, and Stop to stop",
            ));
        }
        let direction = if revolutions < 0.0 { -1.0 } else { 1.0 };
        let speed = RevolutionsPerSecond::from_rpm(rpm * direction);
        let (hold, _under_way) = self.use_motor(&call, &name, motor)?;
        let leg = Travel { motor, speed, revolutions: revolutions.abs() };
        self.motion.travel(&hold, &call.origin, &[leg]).await?;
        self.sessions.rest_before(&resources::key(resources::MOTOR, &name), call.origin.began().at());
        Ok(Response::new(GoForResponse {}))
    }

    async fn go_to(&self, request: Request<GoToRequest>) -> Result<Response<GoToResponse>, Status> {
        self.monitored(&request)?;
        resources::motor(&self.config, &request.get_ref().name)?;
        Err(Status::unimplemented(
            "GoTo is not offered: after a power cycle most drives do not know where their zero is; \
             use GoFor with the difference to GetPosition",
        ))
    }

    async fn reset_zero_position(
        &self,
        request: Request<ResetZeroPositionRequest>,
    ) -> Result<Response<ResetZeroPositionResponse>, Status> {
        resources::motor(&self.config, &request.get_ref().name)?;
        Err(Status::unimplemented(
            "ResetZeroPosition is not offered: the position is the drive's own, and others read it too; \
             subtract an offset in the client",
        ))
    }

    async fn get_position(
        &self,
        request: Request<GetPositionRequest>,
    ) -> Result<Response<GetPositionResponse>, Status> {
        let name = request.into_inner().name;
        let (motor, _) = resources::motor(&self.config, &name)?;
        let reading = self.motion.reading(motor);
        match reading.position {
            Some(position) if reading.fresh => {
                Ok(Response::new(GetPositionResponse { position: position.0 }))
            }
            Some(_) => Err(Status::unavailable(format!(
                "the drive of motor \"{name}\" is silent, and its last position would be out of date; \
                 check its supply and its bus"
            ))),
            None => Err(Status::unavailable(format!(
                "the drive of motor \"{name}\" has not reported a position yet; check its supply, its bus, \
                 and that it sends its position"
            ))),
        }
    }

    async fn get_properties(
        &self,
        request: Request<GetPropertiesRequest>,
    ) -> Result<Response<GetPropertiesResponse>, Status> {
        let (motor, _) = resources::motor(&self.config, &request.into_inner().name)?;
        let position_reporting = self.motion.reading(motor).position.is_some();
        Ok(Response::new(GetPropertiesResponse { position_reporting }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let origin = Origin::of(request.extensions())?;
        let name = request.into_inner().name;
        let (motor, _) = resources::motor(&self.config, &name)?;
        self.stop_motor(&origin, &name, motor, Notes::StopAndDriveFault).await?;
        Ok(Response::new(StopResponse {}))
    }

    async fn is_powered(
        &self,
        request: Request<IsPoweredRequest>,
    ) -> Result<Response<IsPoweredResponse>, Status> {
        let (motor, settings) = resources::motor(&self.config, &request.into_inner().name)?;
        let reading = self.motion.reading(motor);
        let power_pct = reading.commanded.map_or(0.0, |speed| speed.rpm() / settings.max_rpm);
        let is_on = match reading.power {
            Some(power) if reading.fresh => matches!(power, Power::On | Power::QuickStop),
            _ => power_pct != 0.0,
        };
        Ok(Response::new(IsPoweredResponse { is_on, power_pct }))
    }

    async fn is_moving(
        &self,
        request: Request<IsMovingRequest>,
    ) -> Result<Response<IsMovingResponse>, Status> {
        let (motor, settings) = resources::motor(&self.config, &request.into_inner().name)?;
        Ok(Response::new(IsMovingResponse { is_moving: self.moves(motor, settings) }))
    }
}

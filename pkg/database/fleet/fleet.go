// Package fleet describes a demo fleet of F2 controllers: their addresses,
// what is plugged into them, and how their sensors' frames are laid out.
//
// Demo makes the description; CreateSchema and Seed put it into PostgreSQL in
// the metadata schema that real fleets have (section 4 of the design);
// InstallTrigger makes that schema announce its changes. The simulator sends
// frames from the same description, so that what it measures and what a
// decoder reads out of the frames agree.
//
// The package makes no certificates and writes no ACL: pkg/identity and
// pkg/server/mosquitto do, given the MACs. It holds no state; everything in it is
// safe for concurrent use, except that a pgx.Conn serves one caller at a time.
package fleet

import (
	"github.com/f2mesh/f2mesh/pkg/message/frame"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Controller is one F2 controller and everything that is plugged into it.
type Controller struct {
	MAC          topic.MAC
	SerialNumber string // "F2-000001"
	ControllerID int    // its "DeviceId"
	Connectors   []Connector
}

// Connector is one of a controller's connectors J1..J4.
type Connector struct {
	ConnectorID int // "ConnectorId"
	Number      int // 1..4
	Mode        topic.Mode
	Components  []InstalledComponent
}

// InstalledComponent is one component on a connector.
type InstalledComponent struct {
	topic.Component
	Sensor *SensorDevice // set if, and only if, Kind is topic.Sensor
}

// SensorDevice is a device of its own, on the RS-485 bus or an input of a connector.
type SensorDevice struct {
	DeviceID int // its "DeviceId", which its readings belong to
	PinID    int // the "PinId" that links it to the connector
	Name     string
	Template *Template // shared by all sensors of the kind; not to be changed
	Direct   bool      // reports numbers by label instead of an RS-485 frame
}

// Template is how all sensors of one kind lay out their frame.
type Template struct {
	TemplateID int // "DeviceTemplateId"
	Name       string
	DataLength int     // bytes of data in a frame, between byte count and CRC
	Points     []Point // in the order of their "DataPointId"
}

// Point is one data point of a template.
type Point struct {
	DataPointID int // "DataPointId"
	Label       string
	Field       frame.Field // its offset counts from the frame's start
	Format      string      // "DataFormat": Number, Boolean or Text
	Unit        string      // "Append", with which people see the value
	Signal      Signal
}

// Signal is what a simulated data point does over time.
type Signal struct {
	Low, High float64 // the range of a value, scaled as the decoder yields it
	Rising    bool    // a meter's counter: starts near Low and never falls
	Text      string  // the value of a text
}

// Sensors returns the controller's sensors in the order of its connectors.
func (c *Controller) Sensors() []*SensorDevice {
	var sensors []*SensorDevice
	for _, connector := range c.Connectors {
		for _, component := range connector.Components {
			if component.Sensor != nil {
				sensors = append(sensors, component.Sensor)
			}
		}
	}
	return sensors
}

package fleet

import (
	"fmt"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// FirstMAC is the address of the demo's first controller. Its J1/sensor-1 is an
// environmental sensor with the data points Temperature, Humidity and CO2.
const FirstMAC topic.MAC = "e4fd45f654be"

// The demo's ids leave room, so that a controller can get another connector or
// sensor without moving those of the next.
const (
	devicesEach    = 16
	connectorsEach = 4
	pinsEach       = 8
)

// Demo describes n controllers. It is deterministic: Demo(5) is the beginning
// of Demo(100). The first controller is FirstMAC; the others have locally
// administered addresses, which no real device has. All controllers carry the
// same components, so that every one of them exercises all three modes.
func Demo(n int) []Controller {
	list := templates()
	controllers := make([]Controller, n)
	for i := range controllers {
		controllers[i] = demoController(i, list)
	}
	return controllers
}

func demoController(i int, list []*Template) Controller {
	c := Controller{
		MAC:          demoMAC(i),
		SerialNumber: fmt.Sprintf("F2-%06d", i+1),
		ControllerID: i*devicesEach + 1,
		Connectors: []Connector{
			{Mode: topic.SensorMode, Components: []InstalledComponent{sensor(1, list[0]), sensor(2, list[1])}},
			{Mode: topic.SensorMode, Components: []InstalledComponent{sensor(1, list[2]), sensor(2, list[3]), direct(sensor(3, list[4]))}},
			{Mode: topic.AccessControlMode, Components: []InstalledComponent{
				plain(topic.Reader, 1), plain(topic.Reader, 2), plain(topic.Strike, 1),
				plain(topic.DoorSensors, 0), plain(topic.ExitButtons, 0),
			}},
			{Mode: topic.AlarmMode, Components: []InstalledComponent{
				plain(topic.Siren, 1), plain(topic.MotionSensor, 1), plain(topic.MotionSensor, 2),
			}},
		},
	}
	c.number(i)
	return c
}

// number gives everything below the controller its ids and names.
func (c *Controller) number(i int) {
	for j := range c.Connectors {
		c.Connectors[j].Number = j + 1
		c.Connectors[j].ConnectorID = i*connectorsEach + j + 1
	}
	for k, s := range c.Sensors() {
		s.DeviceID = c.ControllerID + k + 1
		s.PinID = i*pinsEach + k + 1
		s.Name = fmt.Sprintf("%s of %s", s.Template.Name, c.SerialNumber)
	}
}

func demoMAC(i int) topic.MAC {
	if i == 0 {
		return FirstMAC
	}
	return topic.MAC(fmt.Sprintf("02f2%08x", i))
}

func sensor(n int, t *Template) InstalledComponent {
	return InstalledComponent{Component: topic.Component{Kind: topic.Sensor, Number: n}, Sensor: &SensorDevice{Template: t}}
}

func direct(c InstalledComponent) InstalledComponent {
	c.Sensor.Direct = true
	return c
}

func plain(kind topic.ComponentKind, n int) InstalledComponent {
	return InstalledComponent{Component: topic.Component{Kind: kind, Number: n}}
}

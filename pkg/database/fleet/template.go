package fleet

import "github.com/f2mesh/f2mesh/pkg/message/frame"

// header is what stands before the data in a Modbus RTU response: address,
// function code and byte count.
const header = 3

// The demo's "DeviceTemplateId"s.
const (
	controllerTemplate = iota + 1
	environmentTemplate
	energyTemplate
	waterTemplate
	statusTemplate
	thermostatTemplate
)

// templates makes the demo's sensor templates. Between them they use every
// encoding and every byte order.
func templates() []*Template {
	list := []*Template{
		{TemplateID: environmentTemplate, Name: "Environmental sensor", DataLength: 12, Points: environment()},
		{TemplateID: energyTemplate, Name: "Energy meter", DataLength: 32, Points: energy()},
		{TemplateID: waterTemplate, Name: "Water meter", DataLength: 38, Points: water()},
		{TemplateID: statusTemplate, Name: "Status module", DataLength: 20, Points: status()},
		{TemplateID: thermostatTemplate, Name: "Thermostat", DataLength: 4, Points: thermostat()},
	}
	id := 0
	for _, t := range list {
		for i := range t.Points {
			id++
			t.Points[i].DataPointID = id
		}
	}
	return list
}

func environment() []Point {
	return []Point{
		number("Temperature", "Int16", 3, 2, 2, "°C", 16, 29),
		number("Humidity", "Uint16", 5, 2, 2, "%", 30, 65),
		number("CO2", "Uint16", 7, 2, 0, "ppm", 410, 1600),
	}
}

func energy() []Point {
	return []Point{
		number("Voltage", "Uint16", 3, 2, 1, "V", 226, 236),
		number("Current", "Uint32CDAB", 5, 4, 3, "A", 0.4, 14),
		number("Active power", "Int32", 9, 4, 1, "W", -800, 3200),
		number("Power factor", "Int16LE", 13, 2, 3, "", 0.82, 1),
		number("Frequency", "Uint16BADC", 15, 2, 2, "Hz", 49.9, 50.1),
		counter("Energy", "Uint64", 17, 8, 3, "kWh", 12000),
		counter("Exported energy", "Float32CDAB", 25, 4, 0, "kWh", 300),
		number("Reactive power", "Int32BADC", 29, 4, 1, "var", -400, 400),
		number("Phase", "Int8", 33, 1, 0, "°", -30, 30),
		number("Tariff", "Uint8", 34, 1, 0, "", 1, 2),
	}
}

func water() []Point {
	return []Point{
		counter("Volume", "BCD", 3, 4, 3, "m³", 1250),
		counter("Pulses", "Uint32LE", 7, 4, 0, "", 125000),
		number("Flow", "Float32", 11, 4, 0, "m³/h", 0, 2.4),
		number("Pressure", "Float64", 15, 8, 0, "bar", 3.6, 4.4),
		counter("Net volume", "Int64CDAB", 23, 8, 3, "m³", 1180),
		number("Temperature", "Float64LE", 31, 8, 0, "°C", 8, 14),
		number("Battery", "Uint8", 39, 1, 0, "%", 80, 99),
	}
}

func status() []Point {
	return []Point{
		flag("Running", "Bool", 3, 2),
		flag("Fault", "Bit0", 5, 2),
		flag("Overload", "Bit3", 5, 2),
		flag("Door open", "Bit12", 5, 2),
		text("Firmware", 7, 8, "F2S-2.14"),
		counter("Uptime", "Uint32CDAB", 15, 4, 0, "s", 86400),
		number("Signal", "Int16", 19, 2, 0, "dBm", -92, -48),
		number("Load", "Uint16LE", 21, 2, 2, "", 0.05, 1.6),
	}
}

func thermostat() []Point {
	return []Point{
		number("Temperature", "Int16", 3, 2, 1, "°C", 18, 26),
		number("Setpoint", "Int16", 5, 2, 1, "°C", 19, 23),
	}
}

func number(label, encoding string, offset, length, decimals int, unit string, low, high float64) Point {
	return Point{
		Label: label, Format: "Number", Unit: unit,
		Field:  field(encoding, offset, length, decimals),
		Signal: Signal{Low: low, High: high},
	}
}

func counter(label, encoding string, offset, length, decimals int, unit string, start float64) Point {
	p := number(label, encoding, offset, length, decimals, unit, start, 2*start)
	p.Signal.Rising = true
	return p
}

func flag(label, encoding string, offset, length int) Point { //nolint:unparam // the length belongs to the layout
	p := number(label, encoding, offset, length, 0, "", 0, 1)
	p.Format = "Boolean"
	return p
}

func text(label string, offset, length int, value string) Point {
	return Point{
		Label: label, Format: "Text",
		Field:  field("ASCII", offset, length, 0),
		Signal: Signal{Text: value},
	}
}

func field(encoding string, offset, length, decimals int) frame.Field {
	e, err := frame.ParseEncoding(encoding)
	if err != nil {
		panic("fleet: the demo names the encoding " + encoding + ", which pkg/message/frame does not know")
	}
	return frame.Field{Encoding: e, Offset: offset, Length: length, Decimals: decimals}
}
